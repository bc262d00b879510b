//! What each rule asks, in words.

use picop_common::connect::Reason as Kernel;

use super::Rule;
use crate::route::Reason as Relay;

/// A rule that the hooks try.
pub fn of_kernel(rule: Kernel, holds: bool) -> Rule {
    let asks = match rule {
        Kernel::NotManaged => "does the process belong to no workload?",
        Kernel::IsAgent => "is it the agent itself?",
        Kernel::NotTcp => "is the socket anything but plain TCP?",
        Kernel::Bypassed => "is the workload bypassed?",
        Kernel::NotAService => "is there no service at that address?",
        Kernel::RelayHeader => "may the connection begin with a header (`context: header`)?",
        Kernel::RelayAsked => "is the workload to be relayed (`path: relay`)?",
        Kernel::NoEnvironment => "has the workload no environment?",
        Kernel::NoVariant => "has the service no variant in the workload's environment?",
        Kernel::Variant => "has that variant an endpoint that takes connections?",
        Kernel::VariantEmptyRefused => {
            "has it none, and must the base not stand in (`fallback: refuse`, or `wait` with nowhere to wait)?"
        }
        Kernel::RelayWait => "has it none, and is the connection to wait until it has (`fallback: wait`)?",
        Kernel::VariantEmptyBase => "has it none, and may the base stand in?",
        Kernel::BaseEmpty => "has the base no endpoint?",
        Kernel::RelayServerFirst => "is a header to be written, and does the server speak first?",
        Kernel::RelayNoInject => "is a header to be written, and is it not proven that the kernel can?",
        Kernel::RelayFull => "is a header to be written, and do too many sockets wait for theirs?",
        Kernel::RelayFastOpen => "is a header to be written, and does the socket use TCP Fast Open?",
        Kernel::RelayFamily => "is the endpoint of the other address family?",
        Kernel::AgentStale => "it is to be relayed: does the agent not answer?",
        Kernel::OtherNetns => "it is to be relayed: is it in another network namespace than the listener?",
        Kernel::BoundToDevice => "it is to be relayed: is the socket bound to an interface?",
        Kernel::NoListener => "it is to be relayed: is there no listener of its family?",
        Kernel::NoStorage => "is there no memory for the socket's record?",
    };
    Rule { by: "kernel".to_owned(), rule: rule.as_str().to_owned(), holds, asks: asks.to_owned() }
}

/// A rule that the relay tries.
pub fn of_relay(rule: Relay, holds: bool) -> Rule {
    let asks = match rule {
        Relay::NotAService => "is there no service at that address any more?",
        Relay::NoEnvironment => "has the connection no environment, in a header or by its workload?",
        Relay::UnknownEnvironment => {
            "has no service a variant, and no workload its place, in that environment?"
        }
        Relay::NoVariant => "has the service no variant in that environment?",
        Relay::Variant => "has that variant an endpoint that takes connections?",
        Relay::VariantEmptyRefused => "has it none, and must the base not stand in (`fallback: refuse`)?",
        Relay::VariantEmptyWaits => {
            "has it none, and is the connection to wait until it has (`fallback: wait`)?"
        }
        Relay::VariantEmptyBase => "has it none, and may the base stand in?",
        Relay::BaseEmpty => "has the base no endpoint?",
    };
    Rule { by: "relay".to_owned(), rule: rule.as_str().to_owned(), holds, asks: asks.to_owned() }
}
