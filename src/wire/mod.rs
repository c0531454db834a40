//! Encodes requests to `sock_diag` and decodes its answers as borrowed views. Pure: it makes no system calls.

mod attributes;
mod destroyed;
pub mod genl;
pub mod inet_diag;
pub mod tcp_info;
