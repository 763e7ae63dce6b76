/// Defines an id that is a plain integer in a map.
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
    /// A network namespace, as `bpf_get_netns_cookie` and `SO_NETNS_COOKIE` (Linux 5.14) name it.
    /// Never reused before the next boot.
    NetnsCookie(u64)
}

id! {
    /// A socket, as `bpf_get_socket_cookie` and `SO_COOKIE` name it. Never reused before the next
    /// boot.
    SocketCookie(u64)
}

id! {
    /// A workload identity's number on this node. Never reused within a pin directory.
    IdentityId(u32)
}

impl IdentityId {
    /// No identity: plaintext.
    pub const NONE: Self = Self(0);
    /// This node itself, as its kernel attests.
    pub const NODE: Self = Self(1);
    /// The first number that a workload identity can have.
    pub const FIRST_WORKLOAD: Self = Self(2);
}

id! {
    /// A compiled policy set in the kernel. Never reused within a pin directory; 0 is none.
    PolicySetId(u32)
}

impl PolicySetId {
    /// No policy set: every connection is refused.
    pub const NONE: Self = Self(0);
}

id! {
    /// Counts the changes of one pod's policy set, so that a verdict asked under an older one is
    /// recognised.
    Generation(u64)
}
