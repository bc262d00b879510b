//! The kinds the server knows.

use serde_json::Value;

/// A kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// v1 Namespace
    Namespace,
    /// v1 Node
    Node,
    /// v1 Pod
    Pod,
    /// v1 Service
    Service,
    /// discovery.k8s.io/v1 EndpointSlice
    EndpointSlice,
    /// coordination.k8s.io/v1 Lease
    Lease,
    /// events.k8s.io/v1 Event
    Event,
    /// picop.dev/v1alpha1 Environment
    Environment,
    /// picop.dev/v1alpha1 ServicePolicy
    ServicePolicy,
}

impl Kind {
    pub(super) const ALL: [Self; 9] = [
        Self::Namespace,
        Self::Node,
        Self::Pod,
        Self::Service,
        Self::EndpointSlice,
        Self::Lease,
        Self::Event,
        Self::Environment,
        Self::ServicePolicy,
    ];

    /// API version, kind, plural, and whether it is namespaced.
    pub(super) fn names(self) -> (&'static str, &'static str, &'static str, bool) {
        match self {
            Self::Namespace => ("v1", "Namespace", "namespaces", false),
            Self::Node => ("v1", "Node", "nodes", false),
            Self::Pod => ("v1", "Pod", "pods", true),
            Self::Service => ("v1", "Service", "services", true),
            Self::EndpointSlice => ("discovery.k8s.io/v1", "EndpointSlice", "endpointslices", true),
            Self::Lease => ("coordination.k8s.io/v1", "Lease", "leases", true),
            Self::Event => ("events.k8s.io/v1", "Event", "events", true),
            Self::Environment => ("picop.dev/v1alpha1", "Environment", "environments", false),
            Self::ServicePolicy => ("picop.dev/v1alpha1", "ServicePolicy", "servicepolicies", true),
        }
    }

    /// Whether a definition must be installed for it.
    pub(super) fn is_custom(self) -> bool {
        matches!(self, Self::Environment | Self::ServicePolicy)
    }

    pub(super) fn of(object: &Value) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|kind| object["apiVersion"] == kind.names().0 && object["kind"] == kind.names().1)
    }

    pub(super) fn at(api_version: &str, plural: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| (kind.names().0, kind.names().2) == (api_version, plural))
    }
}
