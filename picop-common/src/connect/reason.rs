//! Names for what happened, and the indexes it is counted under. Their order is an interface between the two sides of one
//! build.

macro_rules! counted {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The one with that number.
            pub fn of(number: u32) -> Option<Self> {
                Self::ALL.get(usize::try_from(number).ok()?).copied()
            }

            /// The name in logs and metrics.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }
    };
}

counted! {
    /// Why a connection took the path it took. Every connection of the attached cgroup is counted under one.
    Reason {
        /// Left alone: the process belongs to no workload.
        NotManaged = "not_managed",
        /// Left alone: it is the agent.
        IsAgent = "is_agent",
        /// Left alone: not plain TCP.
        NotTcp = "not_tcp",
        /// Left alone: the workload is bypassed.
        Bypassed = "bypassed",
        /// Left alone: the destination is no service.
        NotAService = "not_a_service",
        /// Direct: to the variant of its environment.
        Variant = "variant",
        /// Direct, or left alone where the base is the address itself: the workload has no environment.
        NoEnvironment = "no_environment",
        /// As above: the service has no variant in its environment.
        NoVariant = "no_variant",
        /// As above: the variant has nothing ready.
        VariantEmptyBase = "variant_empty_base",
        /// Refused: the variant has nothing ready, and the base must not stand in.
        VariantEmptyRefused = "variant_empty_refused",
        /// Refused: it should go to the base, which has nothing ready.
        BaseEmpty = "base_empty",
        /// Relayed: its environment may be in its payload.
        RelayHeader = "relay_header",
        /// Relayed: its workload asks for it.
        RelayAsked = "relay_asked",
        /// Relayed: the server speaks first, and is to be sent a header at once.
        RelayServerFirst = "relay_server_first",
        /// Relayed: the kernel is not known to write headers right.
        RelayNoInject = "relay_no_inject",
        /// Relayed: too many sockets are enrolled for a header.
        RelayFull = "relay_full",
        /// Relayed: a header is to be written, and with TCP Fast Open bytes may leave before anything can write it.
        RelayFastOpen = "relay_fast_open",
        /// Relayed: the endpoint is of the other address family.
        RelayFamily = "relay_family",
        /// Relayed: the variant has nothing ready, and the connection is to wait until it has.
        RelayWait = "relay_wait",
        /// To the base: it should be relayed, and the agent does not answer.
        AgentStale = "agent_stale",
        /// To the base: it should be relayed, and is in another network namespace than its workload's listener.
        OtherNetns = "other_netns",
        /// To the base: it should be relayed, and its socket is bound to an interface.
        BoundToDevice = "bound_to_device",
        /// To the base: it should be relayed, and the workload has no listener of its address family.
        NoListener = "no_listener",
        /// Left alone: socket storage could not be had.
        NoStorage = "no_storage",
    }
}

counted! {
    /// What happened to connections later.
    Event {
        /// A peer name was answered.
        PeerName = "peer_name",
        /// An original destination could not be stored; the agent resets that connection.
        NoOriginal = "no_original",
        /// A socket was enrolled for its header.
        Enrolled = "enrolled",
        /// A socket could not be enrolled (another sockmap has it, or the map is full): its header is missing.
        EnrolFailed = "enrol_failed",
        /// A header was written.
        Injected = "injected",
        /// A header could not be written; the application's send failed, and nothing was sent.
        InjectFailed = "inject_failed",
        /// A socket left the map when its header had been acknowledged.
        Unenrolled = "unenrolled",
        /// A socket left the map because it was closing.
        UnenrolledClosing = "unenrolled_closing",
        /// An endpoint did not take a direct connection, and is passed over for a while.
        EndpointFailed = "endpoint_failed",
        /// The agent was not told of a connection: it does not read fast enough.
        TellDropped = "tell_dropped",
        /// Bytes went out past the programs before a header could be written (`MSG_FASTOPEN`).
        HeaderMissed = "header_missed",
        /// A first write took longer than its header to be acknowledged: the socket left the map, but the kernel lets go of
        /// it only when that write returns. Counted once a connection.
        Lingered = "lingered",
        /// A client's socket was enrolled for a graft.
        GraftClient = "graft_client",
        /// A server's socket was enrolled for a graft.
        GraftServer = "graft_server",
        /// A socket could not be enrolled for a graft: another sockmap has it, or all slots are taken.
        GraftFailed = "graft_failed",
        /// A socket enrolled for a graft left the map.
        GraftLeft = "graft_left",
        /// A connection could not be counted by service and environment: there are too many kinds of them.
        UsageFull = "usage_full",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_and_events_index_their_counters() {
        for (i, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, i);
            assert_eq!(Reason::of(*reason as u32), Some(*reason));
        }
        for (i, event) in Event::ALL.iter().enumerate() {
            assert_eq!(*event as usize, i);
        }
        assert_eq!(Reason::of(u32::MAX), None);
        const { assert!(Reason::COUNT <= crate::maps::COUNTERS_MAX) };
        const { assert!(Event::COUNT <= crate::maps::EVENTS_MAX) };
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> =
            Reason::ALL.iter().map(|r| r.as_str()).chain(Event::ALL.iter().map(|e| e.as_str())).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Reason::COUNT + Event::COUNT);
    }
}
