//! Labels and annotations: picop's API on objects of Kubernetes' own kinds.
//!
//! Labels say what belongs to what, and may be changed while everything runs; annotations say how. All are optional.
//!
//! | on | key | value | meaning |
//! | --- | --- | --- | --- |
//! | Pod, Namespace | label [`ENVIRONMENT`] | name | all that the pod (the namespace's pods) says belongs to this environment. Empty on a pod: to none, whatever its namespace says |
//! | Service, Namespace | label [`ENVIRONMENT`] | name | which environment a variant is for |
//! | Service | label [`VARIANT_OF`] | `NAME` or `NAME.NAMESPACE` | it is a variant of that Service |
//! | Pod, Namespace | label [`BYPASS`] | `true` or `false` | the pod's connections are left alone. A pod's own goes before its namespace's |
//! | Service, Namespace | annotation [`VARIANTS_FROM`] | `*` or namespaces, by comma | whose Services may be variants of this one (of those in the namespace), besides the namespace's own |
//! | Service | annotation [`HEADER`] | `strip`, `propagate` | whether its servers are sent the header |
//! | Service | annotation [`FALLBACK`] | `base`, `refuse`, `wait` | where an environment's connections go while its variant has nothing ready |
//! | Service | annotation [`GRAFT`] | `auto`, `always`, `never` | whether the kernel carries relayed payload |
//! | Service | annotation [`EXPECT_HEADER`] | `sniff`, `sniff(50ms)`, `always`, `never` | whether instrumented clients begin with a header |
//! | Service | annotation [`SPEAKS_FIRST`] | `client`, `server` | who sends the first bytes |
//! | Pod | annotation [`CONTEXT`] | `header`, `none` | whether the application begins connections with a header |
//! | Pod | annotation [`PATH`] | `auto`, `relay` | whether all its connections go through the agent |
//!
//! The annotations of a variant Service are of no account: those of the Service it is a variant of hold for all variants.

/// The environment that something belongs to.
pub const ENVIRONMENT: &str = "picop.dev/environment";
/// The Service that this one is a variant of.
pub const VARIANT_OF: &str = "picop.dev/variant-of";
/// Leave connections alone.
pub const BYPASS: &str = "picop.dev/bypass";
/// Which other namespaces may bring variants.
pub const VARIANTS_FROM: &str = "picop.dev/variants-from";
/// [`HeaderPolicy`](crate::route::HeaderPolicy).
pub const HEADER: &str = "picop.dev/header";
/// [`Fallback`](crate::route::Fallback).
pub const FALLBACK: &str = "picop.dev/fallback";
/// [`GraftPolicy`](crate::route::GraftPolicy).
pub const GRAFT: &str = "picop.dev/graft";
/// [`ExpectHeader`](crate::protocol::ExpectHeader).
pub const EXPECT_HEADER: &str = "picop.dev/expect-header";
/// [`SpeaksFirst`](crate::route::SpeaksFirst).
pub const SPEAKS_FIRST: &str = "picop.dev/speaks-first";
/// [`ContextSource`](crate::route::ContextSource).
pub const CONTEXT: &str = "picop.dev/context";
/// [`PathChoice`](crate::route::PathChoice).
pub const PATH: &str = "picop.dev/path";

/// What all of them begin with.
pub const PREFIX: &str = "picop.dev/";

/// On EndpointSlices: the Service they are of.
pub const SLICE_OF: &str = "kubernetes.io/service-name";
/// On mirror pods of static ones: the UID that the kubelet names their cgroup by.
pub const STATIC_UID: &str = "kubernetes.io/config.hash";
/// On Nodes: the zone.
pub const ZONE: &str = "topology.kubernetes.io/zone";
