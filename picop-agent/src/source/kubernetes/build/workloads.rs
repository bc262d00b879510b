//! From the node's Pods to workloads.
use std::collections::BTreeMap;

use super::{
    super::{
        names,
        objects::{Name, Pod},
        problem::Reason,
    },
    Build,
};
use crate::{
    protocol::{Context, EnvId},
    route::{ContextSource, PodCgroup, WorkloadSpec},
};

const KIND: &str = "Pod";

/// The pods whose connections are routed: those of an environment, and instrumented ones.
pub(super) fn all(build: &mut Build<'_>) -> Vec<WorkloadSpec> {
    let objects = build.objects;
    let running = objects.pods.iter().filter(|(_, pod)| !pod.ended && !pod.uid.as_str().is_empty());
    running.filter_map(|(name, pod)| workload(build, name, pod)).collect()
}

fn workload(build: &mut Build<'_>, name: &Name, pod: &Pod) -> Option<WorkloadSpec> {
    let environment = build.environment(name, &pod.marks).map(EnvId::new).transpose();
    let environment = environment.unwrap_or_else(|why| {
        build.problem(KIND, name, Reason::BadEnvironment, why.to_string());
        None
    });
    let context = build.value(KIND, name, &pod.marks, names::CONTEXT).value().unwrap_or_default();
    let path = build.value(KIND, name, &pod.marks, names::PATH).value().unwrap_or_default();
    let bypass = build.bypass(KIND, name, &pod.marks);
    if environment.is_none() && context == ContextSource::None {
        return None;
    }
    let own = Context::for_workload(environment.as_ref(), &BTreeMap::new()).unwrap_or_else(|why| {
        build.problem(KIND, name, Reason::ContextTooLong, why.to_string());
        None
    });
    let cgroup = PodCgroup { uid: pod.uid.clone(), host_network: pod.host_network };
    Some(WorkloadSpec {
        name: Some(name.to_string().into()),
        environment,
        context,
        path,
        own,
        bypass,
        ..WorkloadSpec::new(cgroup)
    })
}
