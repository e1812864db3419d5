//! Work that goes on when nobody waits for it any more, without a task of its own as long as somebody does.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
};

use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};

type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Work that is polled by whoever awaits it, and becomes a task of `tasks` if that one goes away.
///
/// A task from the start would do as well and cost each exchange two wake-ups of another thread: a fifth of its time on two
/// processors. Most callers stay.
#[must_use = "work is done by whoever awaits it"]
pub(super) struct Outliving<T: Send + 'static> {
    work: Option<Work<T>>,
    tasks: TaskTracker,
    /// Drain waits for the work from here on, not only from when it is a task.
    tracked: Option<TaskTrackerToken>,
}

impl<T: Send + 'static> Outliving<T> {
    pub(super) fn of(tasks: &TaskTracker, work: impl Future<Output = T> + Send + 'static) -> Self {
        Self { work: Some(Box::pin(work)), tasks: tasks.clone(), tracked: Some(tasks.token()) }
    }
}

/// `None`: the work panicked, as a task of its own would have without harm to its caller (threat V06). Never polled again.
impl<T: Send + 'static> Future for Outliving<T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        // Taken out, and put back only while there is more to do: work that panicked is never looked at again, which is why
        // it may be asserted to be safe.
        let Some(mut work) = self.work.take() else { return Poll::Ready(None) };
        match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
            Ok(Poll::Ready(done)) => Poll::Ready(Some(done)),
            Ok(Poll::Pending) => {
                self.work = Some(work);
                Poll::Pending
            }
            Err(_) => Poll::Ready(None),
        }
    }
}

impl<T: Send + 'static> Drop for Outliving<T> {
    fn drop(&mut self) {
        let Some(work) = self.work.take() else { return };
        // Without a runtime there is nothing that could go on: the process ends.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let tracked = self.tracked.take();
        let task = async move {
            drop(work.await);
            drop(tracked);
        };
        drop(self.tasks.spawn_on(task, &runtime));
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, pin::pin};

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn who_stays_gets_the_result() {
        let tasks = TaskTracker::new();
        assert_eq!(Outliving::of(&tasks, async { 7 }).await, Some(7));
        assert!(tasks.is_empty());
    }

    #[tokio::test]
    async fn what_began_goes_on_when_its_caller_goes_away_and_drain_waits_for_it() {
        let tasks = TaskTracker::new();
        let (go, gone_on) = oneshot::channel::<()>();
        let (tell, told) = oneshot::channel();
        let mut work = Box::pin(Outliving::of(&tasks, async move {
            gone_on.await.unwrap();
            tell.send("done").unwrap();
        }));
        assert!(is_pending(work.as_mut()).await);
        drop(work);
        tasks.close();
        assert!(is_pending(pin!(tasks.wait())).await, "drain did not wait");
        go.send(()).unwrap();
        assert_eq!(told.await, Ok("done"));
        tasks.wait().await;
    }

    async fn is_pending(mut work: Pin<&mut impl Future>) -> bool {
        poll_fn(|context| Poll::Ready(work.as_mut().poll(context).is_pending())).await
    }

    #[tokio::test]
    async fn what_panics_is_over() {
        let tasks = TaskTracker::new();
        assert_eq!(Outliving::of(&tasks, async { panic!("a defect") }).await, None::<()>);
        tasks.close();
        tasks.wait().await;
    }
}
