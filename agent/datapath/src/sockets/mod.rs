//! The agent's sockets in the pods' network namespaces: its listeners, the connections that it opens under
//! tickets, and the marks by which the kernel knows them.

pub(crate) mod application;
pub(crate) mod dial;
pub(crate) mod failed;
pub(crate) mod keep_alive;
pub(crate) mod listeners;
pub(crate) mod marks;
pub(crate) mod request_stream;
pub(crate) mod sock_diag;
pub(crate) mod stock;
pub(crate) mod ticket;
pub(crate) mod unheard;
