//! The HTTP edge, over HTTP: what goes in, what comes out, byte for byte. What stands behind the seams is a fake here;
//! `exchange` tests the whole path.

mod admin;
mod answers;
mod forms;
mod openapi;
mod operations;
mod published;
mod revoke;
mod sockets;
pub(crate) mod surface;
mod tls;
