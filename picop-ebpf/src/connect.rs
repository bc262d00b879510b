//! `cgroup/connect4|6`: gathers what `picop_common::connect` asks for and does what it says.

use aya_ebpf::{
    bindings::BPF_RB_NO_WAKEUP,
    helpers::{
        bpf_get_current_cgroup_id, bpf_get_prandom_u32, bpf_ktime_get_ns,
        generated::{bpf_get_current_ancestor_cgroup_id, bpf_get_netns_cookie, bpf_set_retval},
    },
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use picop_common::{
    addr::Endpoint,
    connect::{Decision, Event, Facts, Reason, decide},
    maps::{
        AGENT_TELL, AgentConf, FLOW_DIRECT, FLOW_INJECT, FLOW_RELAY, FLOW_RELAY_GRAFT, Flow, LEVELS_MAX,
        TOLD_DIRECT, TOLD_INJECT, TOLD_PASSED, TOLD_REFUSED, Told, UsageKey, Workload,
    },
    route::{Route, RouteKey, environment_tag},
};

use crate::{
    ctx::{set_user_v4, set_user_v6, user_v4, user_v6},
    fastopen, flows,
    maps::{AGENT, HEARTBEAT, ROUTES, Routes, TOLD, UNHEALTHY, WORKLOADS, count, happened, used},
};

/// The program lets the system call go on. (0 would answer it with EPERM.)
const PROCEED: i32 = 1;
const IPPROTO_TCP: u32 = 6;

/// The program ends the system call.
const REFUSE: i32 = 0;
const ECONNREFUSED: i32 = 111;

/// `connect(2)` of an IPv4 socket.
#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    match route(&ctx, user_v4(ctx.sock_addr)) {
        Outcome::Proceed => PROCEED,
        Outcome::Rewrite(to) => {
            set_user_v4(ctx.sock_addr, &to);
            PROCEED
        }
        Outcome::Refuse => refuse(),
    }
}

/// `connect(2)` of an IPv6 socket, to an IPv6 or a v4-mapped address.
#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    match route(&ctx, user_v6(ctx.sock_addr)) {
        Outcome::Proceed => PROCEED,
        Outcome::Rewrite(to) => {
            set_user_v6(ctx.sock_addr, &to);
            PROCEED
        }
        Outcome::Refuse => refuse(),
    }
}

enum Outcome {
    Proceed,
    Rewrite(Endpoint),
    Refuse,
}

/// What a client of a closed port gets. (Without a value of its own, 0 is answered with EPERM.)
#[inline(always)]
fn refuse() -> i32 {
    // SAFETY: a helper without preconditions (6.1 for connect hooks; where it is missing, the program does not load).
    unsafe { bpf_set_retval(-ECONNREFUSED) };
    REFUSE
}

/// Where to send the connection instead, if anywhere.
#[inline(always)]
fn route(ctx: &SockAddrContext, destination: Endpoint) -> Outcome {
    let agent = AGENT.get(0);
    let hook = Hook { ctx, destination, agent, workload: workload(agent), routes: ROUTES.get(0) };
    let (to, header, watch, state, reason) = match decide(&hook) {
        Decision::Pass(reason) => {
            count(reason);
            if reason as u32 > Reason::NotManaged as u32 {
                flows::forget(ctx);
            }
            if reason as u32 > Reason::NotAService as u32 {
                tell(&hook, TOLD_PASSED, destination, reason);
            }
            return Outcome::Proceed;
        }
        Decision::Refuse(reason) => {
            count(reason);
            tell(&hook, TOLD_REFUSED, Endpoint::NONE, reason);
            return Outcome::Refuse;
        }
        Decision::Relay { to, graft, reason } => {
            (to, 0, false, if graft { FLOW_RELAY_GRAFT } else { FLOW_RELAY }, reason)
        }
        Decision::Direct { to, header, watch, reason } => {
            (to, header, watch, if header == 0 { FLOW_DIRECT } else { FLOW_INJECT }, reason)
        }
    };
    let flow = Flow {
        original: destination,
        target: to,
        header,
        environment: hook.workload.as_ref().map_or(0, |workload| environment_tag(workload.environment)),
        state,
        watch: u8::from(watch),
        reason: reason as u16,
    };
    if !flows::remember(ctx, &flow) {
        // Without a record the agent would reset the connection, or the header be missing: better the application's own
        // destination.
        count(Reason::NoStorage);
        return Outcome::Proceed;
    }
    count(reason);
    if state != FLOW_RELAY && state != FLOW_RELAY_GRAFT {
        tell(&hook, if header == 0 { TOLD_DIRECT } else { TOLD_INJECT }, to, reason);
    }
    Outcome::Rewrite(to)
}

/// Counts a connection by what it is, and tells the agent, if it wants to know of it.
#[inline(always)]
fn tell(hook: &Hook<'_>, verdict: u32, target: Endpoint, reason: Reason) {
    let Some(workload) = &hook.workload else { return };
    used(&UsageKey {
        original: hook.destination,
        environment: environment_tag(workload.environment),
        reason: reason as u16,
        verdict: verdict as u16,
        pad: 0,
    });
    if hook.agent_flags() & AGENT_TELL == 0 {
        return;
    }
    let share = hook.agent.map_or(0, |agent| agent.tell_share);
    if share != u32::MAX && hook.random() >= share {
        return;
    }
    let Some(mut entry) = TOLD.reserve(0) else {
        happened(Event::TellDropped);
        return;
    };
    entry.write(Told {
        workload: workload.id,
        environment: workload.environment,
        original: hook.destination,
        target,
        reason: reason as u32,
        verdict,
    });
    entry.submit(BPF_RB_NO_WAKEUP.into());
}

/// The managed workload that the calling process belongs to.
#[inline(always)]
fn workload(agent: Option<&AgentConf>) -> Option<Workload> {
    let agent = agent?;
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

/// The facts, straight from the kernel.
struct Hook<'a> {
    ctx: &'a SockAddrContext,
    destination: Endpoint,
    agent: Option<&'a AgentConf>,
    workload: Option<Workload>,
    /// The version in effect when the connection began: the only one it sees.
    routes: Option<&'a Routes>,
}

impl Facts for Hook<'_> {
    #[inline(always)]
    fn workload(&self) -> Option<Workload> {
        self.workload
    }

    #[inline(always)]
    fn is_agent(&self) -> bool {
        // SAFETY: a helper without preconditions.
        let id = unsafe { bpf_get_current_cgroup_id() };
        self.agent.is_some_and(|agent| agent.agent_cgroup == id)
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
    fn agent_flags(&self) -> u32 {
        self.agent.map_or(0, |agent| agent.flags)
    }

    #[inline(always)]
    fn route(&self, key: &RouteKey) -> Option<Route> {
        // SAFETY: copied at once; a version is not written to after it is put in effect.
        unsafe { self.routes?.get(key).copied() }
    }

    #[inline(always)]
    fn is_unhealthy(&self, endpoint: &Endpoint) -> bool {
        // SAFETY: a helper without preconditions; the value is copied at once.
        unsafe { UNHEALTHY.get(endpoint).is_some_and(|until| bpf_ktime_get_ns() < *until) }
    }

    #[inline(always)]
    fn is_fast_open(&self) -> bool {
        fastopen::is_fast_open(self.ctx.sock_addr)
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: a helper without preconditions.
        unsafe { bpf_get_prandom_u32() }
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
