//! A wire between the broker and a server that a test can cut: what is said goes through it unread, TLS and all.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    thread,
};

pub(crate) struct Wire {
    pub(crate) port: u16,
    answers: Arc<AtomicI64>,
}

const ALL: i64 = i64::MAX;

impl Wire {
    /// From `here` (an address of this machine) to the server.
    pub(crate) fn laid(here: &str, host: &str, port: u16) -> Self {
        let listener = TcpListener::bind((here, 0)).unwrap();
        let wire =
            Self { port: listener.local_addr().unwrap().port(), answers: Arc::new(ALL.into()) };
        let (answers, server) = (Arc::clone(&wire.answers), (host.to_owned(), port));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect((server.0.as_str(), server.1)) else {
                    continue;
                };
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || carry(from, to, &Arc::new(ALL.into())));
                let answers = Arc::clone(&answers);
                thread::spawn(move || carry(server, client, &answers));
            }
        });
        wire
    }

    /// Lets so many answers through; in place of the next one the client sees its connection end.
    pub(crate) fn cut_after(&self, answers: i64) {
        self.answers.store(answers, Ordering::SeqCst);
    }

    pub(crate) fn mend(&self) {
        self.answers.store(ALL, Ordering::SeqCst);
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, left: &Arc<AtomicI64>) {
    let mut buffer = [0; 16_384];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if left.load(Ordering::SeqCst) < ALL && left.fetch_sub(1, Ordering::SeqCst) <= 0 {
            break;
        }
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    drop(from.shutdown(Shutdown::Both));
    drop(to.shutdown(Shutdown::Both));
}
