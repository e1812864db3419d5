//! Tells the service manager how far we are: `sd_notify(3)`, a datagram to the socket that `NOTIFY_SOCKET` names. Nothing
//! where nothing is named.

use std::{
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
};

use tracing::warn;

/// What is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It serves: what waits for it may start.
    Ready,
    /// It drains.
    Stopping,
}

impl State {
    const fn text(self) -> &'static str {
        match self {
            Self::Ready => "READY=1\nSTATUS=serving",
            Self::Stopping => "STOPPING=1\nSTATUS=draining",
        }
    }
}

/// Tells the service manager, if there is one. That it can't be told is a line in the log: it ends what does not say that it is
/// ready by itself.
pub(super) fn tell(state: State) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(&socket, state) {
        warn!("the service manager can't be told of `{}`: {error}", state.text().escape_debug());
    }
}

/// A path, or a name of Linux's own that begins with `@`.
fn send(socket: &OsStr, state: State) -> io::Result<()> {
    let address = match socket.as_bytes().split_first() {
        Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.text().as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 64];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_service_manager_is_told_at_a_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        send(path.as_os_str(), State::Ready).unwrap();
        assert_eq!(heard(&socket), "READY=1\nSTATUS=serving");
        send(path.as_os_str(), State::Stopping).unwrap();
        assert_eq!(heard(&socket), "STOPPING=1\nSTATUS=draining");
    }

    #[test]
    fn a_service_manager_is_told_at_an_abstract_name() {
        let name = format!("cambio-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        send(OsStr::new(&format!("@{name}")), State::Ready).unwrap();
        assert_eq!(heard(&socket), "READY=1\nSTATUS=serving");
    }

    #[test]
    fn a_service_manager_that_is_not_there_is_an_error_that_ends_nothing() {
        assert!(send(OsStr::new("/nowhere/notify"), State::Ready).is_err());
        assert!(send(OsStr::new(""), State::Ready).is_err());
    }
}
