//! Tries each hook, on the loopback device of a network namespace of the calling thread's own, which ends with the thread.
use std::path::Path;

use nix::sched::{CloneFlags, unshare};

use super::{Finding, Wishes};
use crate::{
    bpf::{AttachPlan, EniConstants, Observer, Prepared, Target},
    config::AttachMode,
    discovery::NamespaceId,
};

/// The loopback device, which every namespace has, with index 1 (`LOOPBACK_IFINDEX` of include/net/flow.h).
fn loopback() -> std::io::Result<Target<'static>> {
    Ok(Target {
        namespace_inode: NamespaceId::of_this_thread()?.inode,
        index: 1,
        name: "lo",
        mtu: 65_536,
    })
}

/// The hooks that there are.
pub(super) fn findings(
    folder: &Path,
    constants: EniConstants,
    wishes: &Wishes<'_>,
) -> Vec<Finding> {
    let entered = unshare(CloneFlags::CLONE_NEWNET).map_err(Into::into);
    let target = match entered.and_then(|()| loopback()) {
        Ok(target) => target,
        Err(error) => {
            let found = format!("not tried: no network namespace can be made: {error}");
            return vec![Finding::warn("hooks", found)];
        }
    };
    let attempt = |mode, xdp| {
        let plan = AttachPlan {
            mode,
            position: wishes.capture.position,
            clsact_priority: wishes.capture.clsact_priority,
            xdp,
        };
        attach(folder, constants, target, plan)
    };
    let tcx = attempt(AttachMode::Tcx, false);
    let clsact = attempt(AttachMode::Clsact, false);
    let mode = match &tcx {
        Ok(_) => AttachMode::Tcx,
        Err(_) => AttachMode::Clsact,
    };
    let xdp = attempt(mode, true);
    judge(wishes.capture.attach, wishes.xdp, tcx, clsact, xdp)
}

type Attempt = Result<String, String>;

/// The hook at ingress, or why there is none.
fn attach(folder: &Path, constants: EniConstants, target: Target<'_>, plan: AttachPlan) -> Attempt {
    let observer = Prepared::new(folder, constants)
        .and_then(|prepared| Observer::attach(prepared, target, plan));
    let observer = observer.map_err(|error| error.to_string())?;
    let [ingress, _] = observer.hooks();
    observer.detach(target);
    Ok(ingress.as_str().to_owned())
}

/// What of it matters depends on what is configured.
fn judge(
    mode: AttachMode,
    xdp_wanted: bool,
    tcx: Attempt,
    clsact: Attempt,
    xdp: Attempt,
) -> Vec<Finding> {
    let clsact_works = clsact.is_ok();
    vec![
        match (tcx, mode) {
            (Ok(_), _) => Finding::ok("TCX", "attached"),
            (Err(error), AttachMode::Tcx) => Finding::fail("TCX", error)
                .so("capture.attach asks for it; it takes Linux 6.6, or choose \"auto\""),
            (Err(error), AttachMode::Clsact) => {
                Finding::ok("TCX", error).so("nothing: capture.attach asks for clsact")
            }
            (Err(error), AttachMode::Auto) if clsact_works => Finding::warn("TCX", error).so(
                "clsact is used: others may put filters before the agent's, and filters stay if the agent is \
                 killed, until the next one starts",
            ),
            (Err(error), AttachMode::Auto) => Finding::fail("TCX", error).so("and no clsact either"),
        },
        match (clsact, mode) {
            (Ok(_), _) => Finding::ok("clsact", "attached"),
            (Err(error), AttachMode::Clsact) => Finding::fail("clsact", error)
                .so("capture.attach asks for it; it takes CONFIG_NET_CLS_BPF and CONFIG_NET_SCH_INGRESS"),
            (Err(error), _) => Finding::ok("clsact", error).so("nothing where there is TCX"),
        },
        match (xdp, xdp_wanted) {
            (Ok(hook), _) => Finding::ok("XDP", format!("attached to the loopback: {hook}")),
            (Err(error), true) => Finding::fail("XDP", error)
                .so("entries of the inventory have hook = \"xdp\"; it takes Linux 5.18"),
            (Err(error), false) => {
                Finding::ok("XDP", error).so("nothing: no entry of the inventory has hook = \"xdp\"")
            }
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Status;

    fn works() -> Attempt {
        Ok("tcx".to_owned())
    }

    fn refused() -> Attempt {
        Err("no".to_owned())
    }

    fn statuses(
        mode: AttachMode,
        xdp_wanted: bool,
        [tcx, clsact, xdp]: [Attempt; 3],
    ) -> [Status; 3] {
        let findings = judge(mode, xdp_wanted, tcx, clsact, xdp);
        [0, 1, 2].map(|index| findings[index].status)
    }

    #[test]
    fn a_hook_fails_only_where_it_is_needed() {
        use Status::{Fail, Ok, Warn};
        let none = || [refused(), refused(), refused()];
        for (mode, xdp_wanted, attempts, expected) in [
            (
                AttachMode::Auto,
                true,
                [works(), works(), works()],
                [Ok, Ok, Ok],
            ),
            (
                AttachMode::Auto,
                false,
                [refused(), works(), refused()],
                [Warn, Ok, Ok],
            ),
            (AttachMode::Auto, false, none(), [Fail, Ok, Ok]),
            (
                AttachMode::Auto,
                false,
                [works(), refused(), works()],
                [Ok, Ok, Ok],
            ),
            (
                AttachMode::Tcx,
                false,
                [refused(), works(), works()],
                [Fail, Ok, Ok],
            ),
            (
                AttachMode::Clsact,
                false,
                [refused(), works(), works()],
                [Ok, Ok, Ok],
            ),
            (AttachMode::Clsact, true, none(), [Ok, Fail, Fail]),
        ] {
            assert_eq!(statuses(mode, xdp_wanted, attempts), expected, "{mode:?}");
        }
    }
}
