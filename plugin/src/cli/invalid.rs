//! Values of flags, variables and keys that can't be.

/// An invalid value, and the valid ones.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Invalid {
    #[error("`{0}` is not a name, `=`, a host and a port, such as node-a=10.0.0.1:4244")]
    Peer(String),
    #[error("`{0}` is not a cluster's name like production")]
    Cluster(String),
    #[error("`{0}` is not a power of two less one, such as 4095 or 65535")]
    Capacity(String),
    #[error("name a file, `stdout` or `off`")]
    NoOutput,
    #[error("name a file")]
    NoFile,
    #[error("`{0}` is not a time like 10s or 1m30s")]
    Time(String),
    #[error("`{0}` is less than a second")]
    ShortTime(String),
    #[error("`{0}` is not an account, which is NAMESPACE:NAME")]
    Account(String),
}
