//! Bytes to meaning: what `sock_diag` is asked, and borrowed views of what it answers. Pure; nothing here touches
//! Linux.

mod destroyed;
pub mod genl;
pub mod inet_diag;
pub mod tcp_info;
