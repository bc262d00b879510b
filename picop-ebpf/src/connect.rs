//! `cgroup/connect4|6`: gathers what `picop_common::connect` asks for and does what it says.

use aya_ebpf::{
    helpers::{
        bpf_get_current_cgroup_id, bpf_ktime_get_ns, generated::bpf_get_current_ancestor_cgroup_id,
        generated::bpf_get_netns_cookie,
    },
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use picop_common::{
    addr::Endpoint,
    connect::{Decision, Facts, Reason, decide},
    maps::{FLOW_DIRECT, FLOW_NONE, FLOW_RELAY, Flow, LEVELS_MAX, Service, Workload},
};

use crate::{
    ctx::{set_user_v4, set_user_v6, user_v4, user_v6},
    maps::{AGENT, FLOWS, HEARTBEAT, SERVICES, WORKLOADS, count},
};

/// The program lets the system call go on. (0 would answer it with EPERM.)
const PROCEED: i32 = 1;
const IPPROTO_TCP: u32 = 6;

/// `connect(2)` of an IPv4 socket.
#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    let destination = user_v4(ctx.sock_addr);
    if let Some(to) = route(&ctx, destination) {
        set_user_v4(ctx.sock_addr, &to);
    }
    PROCEED
}

/// `connect(2)` of an IPv6 socket, to an IPv6 or a v4-mapped address.
#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    let destination = user_v6(ctx.sock_addr);
    if let Some(to) = route(&ctx, destination) {
        set_user_v6(ctx.sock_addr, &to);
    }
    PROCEED
}

/// Where to send the connection instead, if anywhere.
#[inline(always)]
fn route(ctx: &SockAddrContext, destination: Endpoint) -> Option<Endpoint> {
    let (to, state, reason) = match decide(&Hook { ctx, destination }) {
        Decision::Pass(reason) => {
            count(reason);
            if reason as u32 > Reason::NotTcp as u32 {
                forget(ctx);
            }
            return None;
        }
        Decision::Relay(to) => (to, FLOW_RELAY, Reason::Relay),
        Decision::Direct(to, reason) => (to, FLOW_DIRECT, reason),
    };
    let mut flow = Flow { original: destination, state };
    // SAFETY: the helper checks the context's socket itself; the value it returns belongs to that socket, which this
    // connect holds locked.
    let stored = unsafe { FLOWS.get_or_insert_ptr_mut(ctx, Some(&mut flow)) };
    if stored.is_null() {
        // Without a record the agent would reset the connection: better the application's own destination.
        count(Reason::NoStorage);
        return None;
    }
    // SAFETY: not null; see above. A record of an earlier connect of this socket is overwritten.
    unsafe { *stored = flow };
    count(reason);
    Some(to)
}

/// A socket may connect again after a failure or AF_UNSPEC: what an earlier connect recorded no longer holds.
#[inline(always)]
fn forget(ctx: &SockAddrContext) {
    // SAFETY: as in `route`.
    let stored = unsafe { FLOWS.get_ptr_mut(ctx) };
    if !stored.is_null() {
        // SAFETY: not null.
        unsafe { (*stored).state = FLOW_NONE };
    }
}

/// The facts, straight from the kernel.
struct Hook<'a> {
    ctx: &'a SockAddrContext,
    destination: Endpoint,
}

impl Facts for Hook<'_> {
    #[inline(always)]
    fn workload(&self) -> Option<Workload> {
        let agent = AGENT.get(0)?;
        let mut i = 0;
        while i < LEVELS_MAX {
            let level = agent.levels[i];
            if level == 0 {
                break;
            }
            // SAFETY: a helper without preconditions; 0 for a level below the task's cgroup, which is no key.
            let id = unsafe { bpf_get_current_ancestor_cgroup_id(level as i32) };
            // SAFETY: the value is copied at once; at worst a concurrent update is seen half, and each field of it is
            // an aligned word that holds its old or its new value.
            if let Some(workload) = unsafe { WORKLOADS.get(id) } {
                return Some(*workload);
            }
            i += 1;
        }
        None
    }

    #[inline(always)]
    fn is_agent(&self) -> bool {
        // SAFETY: a helper without preconditions.
        let id = unsafe { bpf_get_current_cgroup_id() };
        AGENT.get(0).is_some_and(|agent| agent.agent_cgroup == id)
    }

    #[inline(always)]
    fn is_tcp(&self) -> bool {
        // SAFETY: the hook's own context, checked by the verifier.
        unsafe { (*self.ctx.sock_addr).protocol == IPPROTO_TCP }
    }

    #[inline(always)]
    fn destination(&self) -> Endpoint {
        self.destination
    }

    #[inline(always)]
    fn service(&self, at: &Endpoint) -> Option<Service> {
        // SAFETY: copied at once, as in `workload`.
        unsafe { SERVICES.get(*at).copied() }
    }

    #[inline(always)]
    fn netns_cookie(&self) -> u64 {
        // SAFETY: the helper takes this hook's context (kernel 5.7).
        unsafe { bpf_get_netns_cookie(self.ctx.sock_addr.cast()) }
    }

    #[inline(always)]
    fn is_bound_to_device(&self) -> bool {
        // SAFETY: the hook's own context; the socket is not null in connect hooks, and is tested all the same.
        unsafe {
            let sk = (*self.ctx.sock_addr).__bindgen_anon_1.sk;
            !sk.is_null() && (*sk).bound_dev_if != 0
        }
    }

    #[inline(always)]
    fn heartbeat_age_ns(&self) -> u64 {
        // SAFETY: a helper without preconditions.
        let now = unsafe { bpf_ktime_get_ns() };
        HEARTBEAT.get(0).map_or(u64::MAX, |beat| now.saturating_sub(*beat))
    }
}
