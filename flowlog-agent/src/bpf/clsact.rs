//! The clsact qdisc and its filters, asked and changed over netlink in the calling thread's network namespace.
//!
//! All functions here block.
use std::{io, panic, thread};

use futures_util::{StreamExt as _, TryStreamExt as _, pin_mut};
use netlink_packet_route::tc::{TcAttribute, TcFilterBpfOption, TcHandle, TcHeader, TcOption};
use rtnetlink::Handle;

use super::direction::DeviceDirection;

/// A filter of a clsact hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    /// Priority: the lower, the earlier.
    pub priority: u16,
    /// Handle among the filters of its priority, as the kernel writes it: major in the upper half.
    pub(super) handle: u32,
    /// Kind, as `bpf` or `u32`.
    pub kind: String,
    /// Name, of BPF filters.
    pub name: Option<String>,
    /// Program id, of BPF filters.
    pub program_id: Option<u32>,
}

/// Whether the device has a clsact qdisc.
///
/// # Errors
///
/// Netlink's.
pub(super) fn exists(device: u32) -> io::Result<bool> {
    with_netlink(async |handle| {
        let qdiscs = handle.qdisc().get().index(signed(device)?).execute();
        pin_mut!(qdiscs);
        while let Some(qdisc) = qdiscs.next().await {
            let qdisc = qdisc.map_err(io::Error::other)?;
            let clsact = qdisc
                .attributes
                .iter()
                .any(|a| matches!(a, TcAttribute::Kind(kind) if kind == "clsact"));
            if clsact && qdisc.header.index == signed(device)? {
                return Ok(true);
            }
        }
        Ok(false)
    })
}

/// The filters of a hook, in the order in which they run.
///
/// # Errors
///
/// Netlink's.
pub(super) fn filters(device: u32, direction: DeviceDirection) -> io::Result<Vec<Filter>> {
    with_netlink(async |handle| {
        let mut filters = handle.traffic_filter(signed(device)?);
        let request = match direction {
            DeviceDirection::Ingress => filters.get().ingress(),
            DeviceDirection::Egress => filters.get().egress(),
        };
        let messages: Vec<_> = request
            .execute()
            .try_collect()
            .await
            .map_err(io::Error::other)?;
        // A filter's chain head comes as a message of its own, with no handle.
        let mut found: Vec<_> = messages
            .iter()
            .filter(|m| m.header.handle != TcHandle::UNSPEC)
            .map(|m| filter(&m.header, &m.attributes))
            .collect();
        found.sort_by_key(|f| f.priority);
        Ok(found)
    })
}

/// Removes the clsact qdisc, with all that is in it.
///
/// # Errors
///
/// Netlink's.
pub(super) fn remove(device: u32) -> io::Result<()> {
    with_netlink(async |handle| {
        let mut request = handle.qdisc().del(signed(device)?);
        let header = &mut request.message_mut().header;
        header.parent = TcHandle::CLSACT;
        header.handle = TcHandle {
            major: 0xffff,
            minor: 0,
        };
        request.execute().await.map_err(io::Error::other)
    })
}

fn filter(header: &TcHeader, attributes: &[TcAttribute]) -> Filter {
    let mut filter = Filter {
        priority: (header.info >> 16) as u16,
        handle: header.handle.into(),
        kind: String::new(),
        name: None,
        program_id: None,
    };
    for attribute in attributes {
        match attribute {
            TcAttribute::Kind(kind) => filter.kind.clone_from(kind),
            TcAttribute::Options(options) => {
                for option in options {
                    match option {
                        TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => {
                            filter.name = Some(name.clone());
                        }
                        TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => {
                            filter.program_id = Some(*id);
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    filter
}

fn signed(device: u32) -> io::Result<i32> {
    i32::try_from(device).map_err(io::Error::other)
}

/// In a thread of its own, which is in the caller's network namespace: the caller may be on a runtime, which must not be blocked on
/// from within.
fn with_netlink<T: Send>(f: impl AsyncFnOnce(Handle) -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        scope
            .spawn(|| on_new_runtime(f))
            .join()
            .unwrap_or_else(|payload| panic::resume_unwind(payload))
    })
}

fn on_new_runtime<T>(f: impl AsyncFnOnce(Handle) -> io::Result<T>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        let connection = tokio::spawn(connection);
        let result = f(handle).await;
        connection.abort();
        result
    })
}
