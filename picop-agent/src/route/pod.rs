//! Which pod a cgroup is, by its name.
use std::{borrow::Borrow, fmt, sync::Arc};

use super::workload::normal;

/// The UID that the kubelet names a pod's cgroup by. A clone costs a reference count.
///
/// That is `metadata.uid`, except for static pods: their cgroup has the hash that the annotation
/// `kubernetes.io/config.hash` of the mirror pod repeats.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodUid(Arc<str>);

impl PodUid {
    /// As the API server writes it.
    pub fn new(uid: &str) -> Self {
        Self(uid.into())
    }

    /// The pod whose cgroup is at `path`, relative to the cgroup v2 mount. None for the cgroups above and below a pod's.
    ///
    /// Kubelets name it by their driver: `.../kubepods-burstable-pod<UID with _ for ->.slice` (systemd), or
    /// `.../kubepods/burstable/pod<UID>` (cgroupfs); pods of the guaranteed class have no level for it. With a
    /// `--cgroup-root` all of that is below it, and systemd's names begin with its. What the container runtime makes below
    /// a pod (`cri-containerd-<id>.scope`, `crio-<id>.scope`, `<id>`) is none.
    pub fn of_cgroup(path: &str) -> Option<Self> {
        let mut parts = normal(path).rsplit('/');
        let name = parts.next()?;
        let uid = if let Some(slice) = name.strip_suffix(".slice") {
            let (above, uid) = slice.rsplit_once("-pod")?;
            above.split('-').any(|part| part == "kubepods").then(|| uid.replace('_', "-"))?
        } else {
            let uid = name.strip_prefix("pod")?;
            parts.any(|part| part == "kubepods").then(|| uid.to_owned())?
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        (!uid.is_empty() && uid.contains(|c: char| c.is_ascii_digit()) && uid.chars().all(plain))
            .then(|| Self(uid.into()))
    }

    /// As the API server writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PodUid({})", &*self.0)
    }
}

impl Borrow<str> for PodUid {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0f6bd6f4-1c3e-4a8e-9d5f-2b1f3c4d5e6f";

    #[test]
    fn pods_of_all_drivers_and_runtimes() {
        let slice = UID.replace('-', "_");
        for path in [
            // systemd driver; the three classes.
            format!("kubepods.slice/kubepods-pod{slice}.slice"),
            format!("kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{slice}.slice"),
            format!("kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{slice}.slice"),
            // The same below a cgroup root, as kind has it.
            format!(
                "kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/\
                 kubelet-kubepods-burstable-pod{slice}.slice"
            ),
            // cgroupfs driver.
            format!("kubepods/pod{UID}"),
            format!("kubepods/burstable/pod{UID}"),
            format!("/kubepods/besteffort/pod{UID}/"),
            format!("kubelet/kubepods/burstable/pod{UID}"),
            // A node that is a container itself.
            format!("docker/6b4e/kubelet/kubepods/burstable/pod{UID}"),
        ] {
            assert_eq!(PodUid::of_cgroup(&path), Some(PodUid::new(UID)), "{path}");
        }
        // A static pod.
        let hash = "8d3c13d7ad8dc5c3a0ba4ea5d3b6a8ff";
        let path = format!("kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{hash}.slice");
        assert_eq!(PodUid::of_cgroup(&path), Some(PodUid::new(hash)));
    }

    #[test]
    fn what_is_no_pods_own_cgroup() {
        let slice = UID.replace('-', "_");
        for path in [
            String::new(),
            "kubepods.slice".into(),
            "kubepods.slice/kubepods-burstable.slice".into(),
            "kubelet.slice/kubelet-kubepods.slice".into(),
            "kubepods/burstable".into(),
            // Containers, and CRI-O's monitors.
            format!("kubepods.slice/kubepods-pod{slice}.slice/cri-containerd-ab12.scope"),
            format!("kubepods.slice/kubepods-pod{slice}.slice/crio-ab12.scope"),
            format!("kubepods.slice/kubepods-pod{slice}.slice/crio-conmon-ab12.scope"),
            format!("kubepods/burstable/pod{UID}/ab12"),
            // Somebody else's names.
            format!("user.slice/user-pod{slice}.slice"),
            format!("machine/pod{UID}"),
            "kubepods/burstable/pods".into(),
            "kubepods/burstable/pod".into(),
        ] {
            assert_eq!(PodUid::of_cgroup(&path), None, "{path}");
        }
    }
}
