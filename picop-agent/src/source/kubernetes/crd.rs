//! picop's own kinds, `picop.dev/v1alpha1`. The CustomResourceDefinitions in `manifests/crds` are made of these types by
//! `picop crds`.
use std::time::Duration;

use k8s_openapi::{
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};
use kube::{CustomResource, CustomResourceExt as _, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{protocol::ExpectHeader, route::Timeouts};

/// An environment: who it is for, and for how long. Optional: the label `picop.dev/environment` alone makes one. Its name is
/// the label's value.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[kube(
    group = "picop.dev",
    version = "v1alpha1",
    kind = "Environment",
    plural = "environments",
    shortname = "penv",
    category = "picop",
    status = "EnvironmentStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "An environment that shares services with others: who it is for, and for how long.",
    printcolumn = r#"{"name":"Owner","type":"string","jsonPath":".spec.owner"}"#,
    printcolumn = r#"{"name":"Variants","type":"integer","jsonPath":".status.variantCount","description":"Services that have a variant in it"}"#,
    printcolumn = r#"{"name":"Active","type":"string","jsonPath":".status.conditions[?(@.type=='Active')].status"}"#,
    printcolumn = r#"{"name":"Last used","type":"date","jsonPath":".status.lastUsed"}"#,
    printcolumn = r#"{"name":"Expires","type":"date","jsonPath":".status.expiresAt","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.onExpiry == 'Keep' || has(self.ttlSeconds)").message("onExpiry: Delete needs ttlSeconds"))]
pub struct EnvironmentSpec {
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
    /// Whom to ask about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub owner: Option<String>,
    /// How long after its creation its variants are routed to. Left out: until they are removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 60, max = 31_536_000))]
    pub ttl_seconds: Option<u32>,
    /// What becomes of the object then. With `Delete`, Kubernetes also deletes the objects that name it as their owner.
    #[serde(default)]
    pub on_expiry: OnExpiry,
}

/// What becomes of an Environment at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum OnExpiry {
    /// It stays, and has no routes.
    #[default]
    Keep,
    /// It is deleted.
    Delete,
}

/// What picop sees of an environment.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvironmentStatus {
    /// `Active`: whether its variants are routed to.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// How many Services have a variant in it.
    #[serde(default)]
    pub variant_count: u32,
    /// Those, by name; the first 100.
    #[serde(default)]
    #[schemars(length(max = 100))]
    pub variants: Vec<VariantStatus>,
    /// When its routes go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
    /// When a connection last belonged to it, to about a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used: Option<Time>,
}

/// A Service that has a variant in the environment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VariantStatus {
    /// The Service, as NAMESPACE/NAME.
    pub service: String,
    /// The variant, as NAMESPACE/NAME.
    pub variant: String,
    /// When that was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// How many endpoints take connections.
    pub ready: u32,
}

/// How connections to a Service, or to a destination outside of the cluster, are treated. What it says goes before the
/// Service's annotations.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[kube(
    group = "picop.dev",
    version = "v1alpha1",
    kind = "ServicePolicy",
    plural = "servicepolicies",
    shortname = "svcpol",
    category = "picop",
    namespaced,
    status = "ServicePolicyStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "How connections to a Service, or to a destination outside of the cluster, are treated.",
    printcolumn = r#"{"name":"Service","type":"string","jsonPath":".spec.service.name"}"#,
    printcolumn = r#"{"name":"External","type":"string","jsonPath":".spec.external.addresses[0]"}"#,
    printcolumn = r#"{"name":"Accepted","type":"string","jsonPath":".status.conditions[?(@.type=='Accepted')].status"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.service) != has(self.external)").message("exactly one of service and external"))]
#[x_kube(validation = Rule::new("!has(self.external) || !has(self.balancing) || !has(self.balancing.topology)").message("topology is of a Service's endpoints; external ones are on no node"))]
pub struct ServicePolicySpec {
    /// A Service of the policy's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceTarget>,
    /// A destination that is no Service: a database outside of the cluster, say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalTarget>,
    /// Whether its servers are sent the header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<HeaderChoice>,
    /// Where an environment's connections go while its variant has nothing ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<FallbackChoice>,
    /// Whether the kernel carries relayed payload past the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graft: Option<GraftChoice>,
    /// Whether instrumented clients begin with a header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect_header: Option<ExpectHeader>,
    /// Who sends the first bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speaks_first: Option<SpeaksFirstChoice>,
    /// How long connections that the agent relays may take, where it is not as long as its own settings say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<TimeoutsChoice>,
    /// Which of a variant's endpoints its connections get. (What is behind a cluster IP is the cluster's choice, so this is
    /// not of the base.)
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balancing: Option<BalancingChoice>,
}

/// Which of a variant's endpoints connections get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BalancingChoice {
    /// Whether a client stays with an endpoint. Left out: as the variant's Service says (`sessionAffinity`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<AffinityChoice>,
    /// Whether endpoints near the client come first. Left out: `Hints`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology: Option<TopologyChoice>,
}

/// Whether a client stays with an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AffinityChoice {
    /// No: every connection gets any of them, by weight.
    None,
    /// Yes: a pod gets always the same, as long as that is there.
    Client,
}

/// Whether endpoints near the client come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum TopologyChoice {
    /// As the EndpointSlices' hints say (`trafficDistribution` of the variant's Service).
    #[default]
    Hints,
    /// Those on the client's node, if there are any, whatever the hints say; else as they say.
    PreferSameNode,
    /// No: all of them.
    Ignore,
}

/// How long relayed connections may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TimeoutsChoice {
    /// For an endpoint to accept a connection before the next one is tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 300))]
    pub connect_seconds: Option<u32>,
    /// With `fallback: Wait`, for a variant to have something ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub variant_wait_seconds: Option<u32>,
}

impl From<TimeoutsChoice> for Timeouts {
    fn from(choice: TimeoutsChoice) -> Self {
        let time = |seconds: Option<u32>| seconds.map(|seconds| Duration::from_secs(seconds.into()));
        Self { connect: time(choice.connect_seconds), variant_wait: time(choice.variant_wait_seconds) }
    }
}

/// A Service of the policy's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceTarget {
    /// Its name.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// One of its ports. Left out: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
}

/// A destination that is no Service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalTarget {
    /// Where clients connect, as IP:port.
    #[schemars(length(min = 1, max = 16), inner(length(max = 51)))]
    pub addresses: Vec<String>,
    /// What environments have of their own. The others get the addresses themselves.
    #[serde(default)]
    #[schemars(length(max = 1000), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub environments: Vec<ExternalVariant>,
}

/// An environment's own destination.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalVariant {
    /// The environment.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Where its connections go.
    #[schemars(length(max = 16))]
    pub endpoints: Vec<ExternalEndpoint>,
}

/// Where connections go.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalEndpoint {
    /// IP:port.
    #[schemars(length(max = 51))]
    pub address: String,
    /// How much of the connections it gets: this by the sum of all. 0 is none. Left out: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub weight: Option<u32>,
}

/// What picop makes of a policy.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServicePolicyStatus {
    /// `Accepted`: whether all that it says holds; if not, why.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

macro_rules! choice {
    ($(#[$doc:meta])* $name:ident of $policy:ident { $($(#[$vdoc:meta])* $variant:ident,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        pub enum $name {
            $($(#[$vdoc])* $variant,)*
        }

        impl From<$name> for crate::route::$policy {
            fn from(choice: $name) -> Self {
                match choice {
                    $($name::$variant => Self::$variant,)*
                }
            }
        }
    };
}

// As Kubernetes writes enumerations, not as route files do.
choice! {
    /// Whether servers are sent the header.
    HeaderChoice of HeaderPolicy {
        /// They would choke on it.
        Strip,
        /// They read it.
        Propagate,
    }
}
choice! {
    /// Where connections go while a variant has nothing ready.
    FallbackChoice of Fallback {
        /// To the base.
        Base,
        /// Nowhere.
        Refuse,
        /// Nowhere until it has, for a while.
        Wait,
    }
}
choice! {
    /// Whether the kernel carries relayed payload.
    GraftChoice of GraftPolicy {
        /// Where no application can tell.
        Auto,
        /// Wherever it can.
        Always,
        /// Nowhere.
        Never,
    }
}
choice! {
    /// Who sends the first bytes.
    SpeaksFirstChoice of SpeaksFirst {
        /// The client.
        Client,
        /// The server.
        Server,
    }
}

/// The definitions, to be applied before anything that uses them.
pub fn definitions() -> [CustomResourceDefinition; 2] {
    let plain = |crd: CustomResourceDefinition| {
        let mut value = serde_json::to_value(crd).expect("a definition is plain JSON");
        simplify(&mut value);
        serde_json::from_value(value).expect("a definition still")
    };
    [plain(Environment::crd()), plain(ServicePolicy::crd())]
}

/// Removes what the API server does not know and warns of: Rust's widths of integers. Their ranges stay. And defaults of what
/// may be left out: the server would fill them in, and nobody could tell any more that nothing was said.
fn simplify(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.get("format").and_then(Value::as_str).is_some_and(|format| format.starts_with("uint")) {
                fields.remove("format");
            }
            if fields.get("nullable") == Some(&Value::Bool(true)) {
                fields.remove("default");
            }
            fields.values_mut().for_each(simplify);
        }
        Value::Array(items) => items.iter_mut().for_each(simplify),
        _ => {}
    }
}

/// The definitions as `manifests/crds/picop.dev.yaml` has them.
pub fn yaml() -> Result<String, serde_saphyr::SerializeError> {
    let mut text =
        String::from("# Made by `picop crds` of the types in picop-agent/src/source/kubernetes/crd.rs.\n");
    for definition in definitions() {
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(&definition)?);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use serde_json::json;

    use super::*;

    #[test]
    fn the_manifest_is_what_the_types_say() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/crds/picop.dev.yaml");
        let committed = fs::read_to_string(&path).unwrap();
        assert_eq!(committed, yaml().unwrap(), "run `picop crds > manifests/crds/picop.dev.yaml`");
    }

    /// What the API server asks of a schema: <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema>.
    #[test]
    fn schemas_are_structural() {
        fn check(at: &str, schema: &Value) {
            let Some(fields) = schema.as_object() else { panic!("{at}: {schema}") };
            for forbidden in [
                "$ref",
                "definitions",
                "$defs",
                "$schema",
                "patternProperties",
                "additionalItems",
                "const",
                "oneOf",
            ] {
                assert!(!fields.contains_key(forbidden), "{at} has {forbidden}");
            }
            let typed = fields.contains_key("type") || fields.contains_key("x-kubernetes-int-or-string");
            assert!(typed, "{at} has no type: {schema}");
            for (name, property) in fields.get("properties").and_then(Value::as_object).into_iter().flatten()
            {
                check(&format!("{at}.{name}"), property);
            }
            for inner in ["items", "additionalProperties"] {
                if let Some(inner) = fields.get(inner) {
                    check(&format!("{at}[]"), inner);
                }
            }
        }
        for definition in definitions() {
            let value = serde_json::to_value(&definition).unwrap();
            let version = &value["spec"]["versions"][0];
            let kind = value["spec"]["names"]["kind"].as_str().unwrap();
            check(kind, &version["schema"]["openAPIV3Schema"]);
            let spec = &version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
            for (name, field) in spec.as_object().unwrap() {
                assert!(
                    field["nullable"].is_null() || field["default"].is_null(),
                    "{kind}: {name} has a default"
                );
            }
            assert_eq!(version["subresources"], json!({"status": {}}), "{kind}");
            assert!(!version["additionalPrinterColumns"].as_array().unwrap().is_empty(), "{kind}");
            let rules =
                &version["schema"]["openAPIV3Schema"]["properties"]["spec"]["x-kubernetes-validations"];
            assert!(!rules.as_array().unwrap().is_empty(), "{kind}");
        }
    }

    /// The rules of a kind's spec that an object breaks, by their messages.
    fn broken(kind: &str, spec: &Value) -> Vec<String> {
        let definitions = definitions().map(|it| serde_json::to_value(it).unwrap());
        let definition = definitions.iter().find(|it| it["spec"]["names"]["kind"] == kind).unwrap();
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        let rules = schema["x-kubernetes-validations"].as_array().unwrap();
        let holds = |rule: &Value| {
            let program = cel::Program::compile(rule["rule"].as_str().unwrap()).unwrap();
            let mut context = cel::Context::default();
            context.add_variable("self", spec).unwrap();
            program.execute(&context).unwrap() == cel::Value::Bool(true)
        };
        let broken = rules.iter().filter(|rule| !holds(rule));
        broken.map(|rule| rule["message"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn rules_refuse_what_contradicts_itself() {
        let (service, external) = (json!({"name": "cart"}), json!({"addresses": ["192.0.2.1:5432"]}));
        let topology = json!({"topology": "Ignore"});
        for (spec, count) in [
            (json!({"service": service}), 0),
            (json!({"external": external}), 0),
            (json!({}), 1),
            (json!({"service": service, "external": external}), 1),
            (json!({"service": service, "balancing": topology}), 0),
            (json!({"external": external, "balancing": {"affinity": "Client"}}), 0),
            (json!({"external": external, "balancing": topology}), 1),
        ] {
            assert_eq!(broken("ServicePolicy", &spec).len(), count, "{spec}");
        }
        for (spec, count) in [
            (json!({"onExpiry": "Keep"}), 0),
            (json!({"onExpiry": "Delete", "ttlSeconds": 60}), 0),
            (json!({"onExpiry": "Delete"}), 1),
        ] {
            assert_eq!(broken("Environment", &spec).len(), count, "{spec}");
        }
    }
}
