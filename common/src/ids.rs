/// Defines an id that is an integer in a map.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[repr(transparent)]
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[cfg_attr(feature = "user", derive(Debug))]
        pub struct $name(pub $inner);

        #[cfg(feature = "maps")]
        // SAFETY: `repr(transparent)` over an integer.
        unsafe impl aya::Pod for $name {}
    };
}

id! {
    /// The cookie of a network namespace, as `bpf_get_netns_cookie` and `SO_NETNS_COOKIE` (Linux 5.14) give
    /// it. Not reused before the next boot.
    NetnsCookie(u64)
}

id! {
    /// The cookie of a socket, as `bpf_get_socket_cookie` and `SO_COOKIE` give it. Not reused before the next
    /// boot.
    SocketCookie(u64)
}

id! {
    /// The number of a workload identity on this node. Never reused within a pin directory.
    IdentityId(u32)
}

impl IdentityId {
    /// No identity: plaintext.
    pub const NONE: Self = Self(0);
    /// This node itself, whose kernel has recorded the connect.
    pub const NODE: Self = Self(1);
    /// The first number that a workload identity can have.
    pub const FIRST_WORKLOAD: Self = Self(2);
}

id! {
    /// The number of a compiled policy set in the kernel. Never reused within a pin directory; 0 is none.
    PolicySetId(u32)
}

impl PolicySetId {
    /// No policy set: every connection is refused.
    pub const NONE: Self = Self(0);
}

id! {
    /// The number of changes of one pod's policy set. It shows whether a verdict was asked for under an older
    /// set.
    Generation(u64)
}
