/// Defines the counters with their index and the name that status and metrics use.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident, $word:literal;)*) => {
        /// An outcome that a kernel program counts: index into the per-CPU array `COUNTS`.
        #[repr(u32)]
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        #[cfg_attr(feature = "user", derive(Debug))]
        pub enum Counter {
            $($(#[$doc])* $name,)*
        }

        impl Counter {
            /// All counters, in index order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name that status and metrics use.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }
        }

        /// How many counters there are.
        pub const COUNTERS: u32 = Counter::ALL.len() as u32;
    };
}

counters! {
    /// A pod's connect was sent to the outbound listener.
    OutboundRedirected, "outbound_redirected";
    /// A pod's connect outside the mesh passed.
    OutboundOutside, "outbound_outside_mesh";
    /// A pod's connect to a pod or Service that is not opted in passed.
    OutboundNotOptedIn, "outbound_not_opted_in";
    /// A pod's connect to itself passed.
    OutboundLocal, "outbound_local";
    /// A pod's connect was refused.
    OutboundRefused, "outbound_refused";
    /// A tunnel or plaintext connect of the agent passed.
    TicketPassed, "ticket_passed";
    /// A delivery was allowed by the policy tables.
    DeliveryAllowed, "delivery_allowed";
    /// A delivery was denied.
    DeliveryDenied, "delivery_denied";
    /// A delivery needs the userspace evaluator.
    DeliveryAsked, "delivery_asked";
    /// A delivery's ticket was of another generation.
    DeliveryStale, "delivery_stale";
    /// An inbound plaintext connection was allowed.
    PlaintextAllowed, "plaintext_allowed";
    /// An inbound plaintext connection was denied.
    PlaintextDenied, "plaintext_denied";
    /// An inbound plaintext connection went to the plaintext listener.
    PlaintextAsked, "plaintext_asked";
    /// A probe of the node itself was admitted.
    ProbeAdmitted, "probe_admitted";
    /// A tunnel was steered to the HBONE listener.
    HboneSteered, "hbone_steered";
    /// A redirected connection was steered to the outbound listener.
    OutboundSteered, "outbound_steered";
    /// A delivery passed to the application.
    DeliverySteered, "delivery_steered";
    /// Traffic of the pod to itself passed.
    LoopbackPassed, "loopback_passed";
    /// A segment that claims to be the pod's own was refused, because the kernel attests no
    /// handshake of it: a late segment of a connection that has ended, a packet from the network
    /// with a forged source, or a process of the pod that imitates the agent towards its own pod.
    LoopbackRefused, "loopback_refused";
    /// An inbound connection was refused for a reason other than policy.
    SkLookupRefused, "sk_lookup_refused";
    /// A repeated segment of a connection already refused.
    SkLookupRefusedAgain, "sk_lookup_refused_again";
    /// A handshake record could not be stored.
    HandshakeLost, "handshake_record_lost";
    /// An accepted socket could not be given its record.
    AcceptedLost, "accepted_record_lost";
    /// A denial was not reported since its pod had used up its share.
    EventLimited, "event_limited";
    /// A denial was not reported since the ring buffer was full.
    EventLost, "event_lost";
}
