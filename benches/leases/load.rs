//! A closed loop of a fixed length: callers that share nothing but a counter, each with one piece of work in flight.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use async_trait::async_trait;
use tokio::task::JoinSet;

/// One of several that work side by side.
#[async_trait]
pub trait Caller: Send {
    /// The piece of work with this number.
    async fn one(&mut self, number: usize) -> Result<(), String>;
}

/// What several runs saw together.
#[derive(Debug, Default)]
pub struct Seen {
    /// Pieces per second, one figure for each run.
    rates: Vec<f64>,
    /// In microseconds.
    latencies: Vec<u32>,
}

impl Seen {
    /// The median over the runs.
    pub fn per_second(&self) -> f64 {
        median(self.rates.clone())
    }

    /// The rate of the newest run.
    pub fn last(&self) -> Option<f64> {
        self.rates.last().copied()
    }

    /// The latency that `part` of all pieces did not exceed, in milliseconds.
    pub fn quantile(&self, part: f64) -> f64 {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let at = (part * sorted.len().saturating_sub(1) as f64).round() as usize;
        sorted.get(at).map_or(f64::NAN, |us| f64::from(*us) / 1_000.0)
    }

    /// Adds a run of `count` pieces, `first` being the number of its first.
    pub async fn run(
        &mut self,
        callers: Vec<Box<dyn Caller>>,
        first: usize,
        count: usize,
    ) -> Result<(), String> {
        let next = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        let begun = Instant::now();
        for mut caller in callers {
            let next = Arc::clone(&next);
            tasks.spawn(async move {
                let mut latencies = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return Ok::<_, String>(latencies);
                    }
                    let begun = Instant::now();
                    caller.one(first + number).await?;
                    latencies.push(u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX));
                }
            });
        }
        while let Some(ended) = tasks.join_next().await {
            self.latencies.extend(ended.map_err(|error| error.to_string())??);
        }
        self.rate(count, begun);
        Ok(())
    }

    /// Adds a run of which only the whole is known.
    pub fn rate(&mut self, count: usize, begun: Instant) {
        self.rates.push(count as f64 / begun.elapsed().as_secs_f64());
    }
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
