//! What cannot be done as an object asks, by name.
use std::fmt;

use serde::Serialize;

use super::objects::Name;

/// An object asks for something that picop does not do, or that contradicts another. The rest of it holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Problem {
    /// The object's kind.
    pub kind: &'static str,
    /// The object.
    pub object: Name,
    /// What is wrong, by name.
    pub reason: Reason,
    /// The same in words, and what to do about it.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}: {}", self.kind, self.object, self.reason.as_str(), self.message)
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Why something is not done. The names are what events and conditions carry, and stay.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The name.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }
        }
    };
}

reasons! {
    /// A label or annotation has a value that means nothing.
    BadValue,
    /// A variant's environment is said nowhere.
    NoEnvironment,
    /// An environment's name cannot be one.
    BadEnvironment,
    /// The Service it is a variant of is not there.
    NoSuchService,
    /// It is a variant of itself, or of a variant.
    VariantOfVariant,
    /// It is in another namespace, from which no variants are wanted.
    NamespaceNotAllowed,
    /// The Service has a variant in that environment already.
    DuplicateVariant,
    /// The environment's time has run out.
    EnvironmentExpired,
    /// An ExternalName Service has no address to connect to or to be sent to.
    ExternalName,
    /// It has no address yet, or no TCP port.
    NothingToRoute,
    /// A port of the Service has no counterpart in the variant.
    PortMissing,
    /// An address is another service's already.
    AddressTaken,
    /// The Service's own selector selects the variant's pods as well.
    VariantInBase,
    /// Its endpoints are another Service's as well, where cluster IPs are translated before picop sees them.
    SharedEndpoints,
    /// An EndpointSlice's addresses are names.
    FqdnEndpoints,
    /// A policy names a Service or port that is not there.
    NoSuchTarget,
    /// Another policy says something of the same.
    PolicyConflict,
    /// An address in a policy is none.
    BadAddress,
    /// A weight in a policy is too large.
    BadWeight,
    /// The environment and its keys fit in no header.
    ContextTooLong,
}
