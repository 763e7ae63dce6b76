/// Defines the counters in index order, with the name that status and metrics use.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident, $word:literal;)*) => {
        /// An outcome that a kernel program counts: the index into the per-CPU array `COUNTS`.
        #[repr(u32)]
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        #[cfg_attr(feature = "user", derive(Debug))]
        pub enum Counter {
            $($(#[$doc])* $name,)*
        }

        impl Counter {
            /// All counters, in index order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Returns the name that status and metrics use.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }
        }

        /// The number of counters.
        pub const COUNTERS: u32 = Counter::ALL.len() as u32;
    };
}

counters! {
    /// A pod's connect was redirected to the outbound listener.
    OutboundRedirected, "outbound_redirected";
    /// A pod's connect outside the mesh passed.
    OutboundOutside, "outbound_outside_mesh";
    /// A pod's connect to a pod or Service that is not opted in passed.
    OutboundNotOptedIn, "outbound_not_opted_in";
    /// A pod's connect to itself passed.
    OutboundLocal, "outbound_local";
    /// A pod's connect was refused.
    OutboundRefused, "outbound_refused";
    /// A pod's connect was refused because all endpoints of its destination had just failed.
    OutboundFailed, "outbound_endpoints_failed";
    /// A tunnel or plaintext connect of the agent passed.
    TicketPassed, "ticket_passed";
    /// A delivery was allowed by the policy maps.
    DeliveryAllowed, "delivery_allowed";
    /// A delivery was denied, or another connect of the agent did not fit its ticket.
    DeliveryDenied, "delivery_denied";
    /// A delivery whose verdict needs the evaluator in userspace.
    DeliveryAsked, "delivery_asked";
    /// A delivery whose ticket was made before the last change of policies.
    DeliveryStale, "delivery_stale";
    /// A delivery that the policies did not deny, to an address where no socket listens. If the agent finds
    /// that the look-up could have missed one, it connects again, which is counted once more.
    DeliveryUnheard, "delivery_nothing_listens";
    /// An inbound plaintext connection was allowed by the policy maps.
    PlaintextAllowed, "plaintext_allowed";
    /// An inbound plaintext connection was denied by the policy maps.
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
    /// A segment that claims to be the pod's own was refused, because no handshake was recorded for it: a
    /// late segment of a connection that has ended, a packet from the network with a forged source, or a
    /// process of the pod that imitates the agent.
    LoopbackRefused, "loopback_refused";
    /// `sk_lookup` refused a connection, inbound or redirected, for a reason other than policy.
    SkLookupRefused, "sk_lookup_refused";
    /// A further segment of a connection that `sk_lookup` has refused.
    SkLookupRefusedAgain, "sk_lookup_refused_again";
    /// A handshake record could not be stored.
    HandshakeLost, "handshake_record_lost";
    /// An accepted socket could not be given its record.
    AcceptedLost, "accepted_record_lost";
    /// A denial was not reported, because its source or pod had used up its share.
    EventLimited, "event_limited";
    /// A denial was not reported, because the ring buffer was full.
    EventLost, "event_lost";
}
