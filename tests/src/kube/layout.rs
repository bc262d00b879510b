//! Where kubelets and container runtimes put a pod's cgroups.

use crate::pod::PodSpec;

/// A kubelet's driver and a container runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// systemd, containerd.
    Systemd,
    /// systemd, CRI-O.
    SystemdCrio,
    /// systemd, containerd, a guaranteed pod: one level less.
    SystemdGuaranteed,
    /// systemd below `--cgroup-root`, as kind has it.
    SystemdNested,
    /// cgroupfs, containerd.
    Cgroupfs,
    /// cgroupfs, CRI-O.
    CgroupfsCrio,
    /// cgroupfs below `--cgroup-root`.
    CgroupfsNested,
}

impl Layout {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Systemd,
        Self::SystemdCrio,
        Self::SystemdGuaranteed,
        Self::SystemdNested,
        Self::Cgroupfs,
        Self::CgroupfsCrio,
        Self::CgroupfsNested,
    ];

    /// The cgroup of a pod, and the name of one of its container's below that.
    pub fn cgroups(self, uid: &str, container: &str) -> (String, String) {
        let slice = uid.replace('-', "_");
        let burstable = "kubepods.slice/kubepods-burstable.slice";
        let nested = "kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice";
        let (containerd, crio) =
            (format!("cri-containerd-{container}.scope"), format!("crio-{container}.scope"));
        match self {
            Self::Systemd => (format!("{burstable}/kubepods-burstable-pod{slice}.slice"), containerd),
            Self::SystemdCrio => (format!("{burstable}/kubepods-burstable-pod{slice}.slice"), crio),
            Self::SystemdGuaranteed => (format!("kubepods.slice/kubepods-pod{slice}.slice"), containerd),
            Self::SystemdNested => {
                (format!("{nested}/kubelet-kubepods-burstable-pod{slice}.slice"), containerd)
            }
            Self::Cgroupfs => (format!("kubepods/burstable/pod{uid}"), container.to_owned()),
            Self::CgroupfsCrio => (format!("kubepods/besteffort/pod{uid}"), format!("crio-{container}")),
            Self::CgroupfsNested => (format!("kubelet/kubepods/burstable/pod{uid}"), container.to_owned()),
        }
    }

    /// A pod whose processes are in a container's cgroup.
    pub fn pod(self, name: &str, uid: &str) -> PodSpec {
        let (pod, container) = self.cgroups(uid, &"ab12".repeat(16));
        PodSpec::new(name).cgroup(format!("{pod}/{container}"))
    }
}
