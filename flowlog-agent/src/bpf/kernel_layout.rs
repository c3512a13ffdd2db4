//! Where the running kernel keeps what the program that sees netfilter's drops must read.
use std::{io, path::Path};

use flowlog_common::KernelLayout;
use thiserror::Error;

use super::kernel_types::KernelTypes;

/// The kernel's own types.
const KERNEL: &str = "/sys/kernel/btf/vmlinux";

/// The reason that is looked for.
const REASONS: &str = "skb_drop_reason";
const NETFILTER: &str = "SKB_DROP_REASON_NETFILTER_DROP";

/// The type of functions on the tracepoint `kfree_skb`, and which of their parameters is the reason: the first is not the tracepoint's.
const TRACEPOINT: &str = "btf_trace_kfree_skb";
const REASON_PARAMETER: usize = 3;

/// Why the layout is not known: what is missing.
#[derive(Debug, Error)]
pub enum UnknownLayout {
    /// BTF, as a whole.
    #[error("the kernel does not tell its types: {KERNEL}: {0}")]
    Types(#[source] io::Error),
    /// The reason of a drop; before Linux 5.17.
    #[error(
        "the kernel does not say why it drops a packet: its tracepoint kfree_skb has no reason, as Linux 5.17 and later have"
    )]
    Reason,
    /// Netfilter among the reasons; Linux 5.17.
    #[error(
        "the kernel does not say that it was netfilter that dropped a packet: it has no {NETFILTER}, as Linux 5.18 and later have"
    )]
    NetfilterReason,
    /// A field, of a kernel that is otherwise than any that is known.
    #[error("the kernel's types have no {0}")]
    Field(String),
}

/// Reads the running kernel's types, of which nothing is kept.
///
/// # Errors
///
/// What the kernel lacks.
pub(super) fn of_running_kernel() -> Result<KernelLayout, UnknownLayout> {
    let types = KernelTypes::read(Path::new(KERNEL)).map_err(UnknownLayout::Types)?;
    of(&types)
}

pub(super) fn of(types: &KernelTypes) -> Result<KernelLayout, UnknownLayout> {
    if !types.parameter_is_enum(TRACEPOINT, REASON_PARAMETER, REASONS) {
        return Err(UnknownLayout::Reason);
    }
    let reason = types
        .enumerator(REASONS, NETFILTER)
        .ok_or(UnknownLayout::NetfilterReason)?;
    let offset = |of: &str, path: &str| {
        let missing = || UnknownLayout::Field(format!("struct {of} with {path}"));
        let of = types.find_struct(of).ok_or_else(missing)?;
        types
            .path(of, path)
            .map(|field| field.offset)
            .ok_or_else(missing)
    };
    let or_absent = |of: &str, path: &str| offset(of, path).unwrap_or(KernelLayout::ABSENT);
    let connection = Connection::find(types);
    Ok(KernelLayout {
        reason,
        skb_dev: offset("sk_buff", "dev")?,
        skb_iif: offset("sk_buff", "skb_iif")?,
        skb_protocol: offset("sk_buff", "protocol")?,
        skb_network_header: offset("sk_buff", "network_header")?,
        skb_head: offset("sk_buff", "head")?,
        skb_data: offset("sk_buff", "data")?,
        skb_len: offset("sk_buff", "len")?,
        skb_data_len: offset("sk_buff", "data_len")?,
        skb_end: offset("sk_buff", "end")?,
        skb_next: offset("sk_buff", "next")?,
        skb_cb: offset("sk_buff", "cb")?,
        skb_dst: offset("sk_buff", "_skb_refdst")?,
        skb_connection: connection.map_or(KernelLayout::ABSENT, |c| c.of_skb),
        shared_gso_size: offset("skb_shared_info", "gso_size")?,
        shared_gso_segs: offset("skb_shared_info", "gso_segs")?,
        shared_frag_list: offset("skb_shared_info", "frag_list")?,
        ipv4_iif: offset("inet_skb_parm", "iif")?,
        ipv4_frag_max_size: offset("inet_skb_parm", "frag_max_size")?,
        ipv6_frag_max_size: or_absent("inet6_skb_parm", "frag_max_size"),
        dst_dev: offset("dst_entry", "dev")?,
        device_index: offset("net_device", "ifindex")?,
        device_namespace: offset("net_device", "nd_net.net")?,
        namespace_inode: offset("net", "ns.inum")?,
        connection_status: connection.map_or(KernelLayout::ABSENT, |c| c.status),
        connection_tuples: connection.map_or(KernelLayout::ABSENT, |c| c.tuples),
        tuple_step: connection.map_or(KernelLayout::ABSENT, |c| c.step),
        tuple_src_addr: connection.map_or(KernelLayout::ABSENT, |c| c.src_addr),
        tuple_src_port: connection.map_or(KernelLayout::ABSENT, |c| c.src_port),
        tuple_dst_addr: connection.map_or(KernelLayout::ABSENT, |c| c.dst_addr),
        tuple_dst_port: connection.map_or(KernelLayout::ABSENT, |c| c.dst_port),
        tuple_protocol: connection.map_or(KernelLayout::ABSENT, |c| c.protocol),
    })
}

/// Where connection tracking keeps a packet's tuple. A kernel may be without it, or have it as a module whose types are told elsewhere; then
/// what netfilter translated is taken for what was received.
#[derive(Clone, Copy)]
struct Connection {
    of_skb: u32,
    status: u32,
    tuples: u32,
    step: u32,
    src_addr: u32,
    src_port: u32,
    dst_addr: u32,
    dst_port: u32,
    protocol: u32,
}

impl Connection {
    fn find(types: &KernelTypes) -> Option<Self> {
        let connection = types.find_struct("nf_conn")?;
        let hashes = types.path(connection, "tuplehash")?;
        let hash = types.element(hashes.type_id)?;
        let tuple = types.path(hash, "tuple")?;
        let of = |path: &str| types.path(tuple.type_id, path).map(|field| field.offset);
        let skb = types.find_struct("sk_buff")?;
        Some(Self {
            of_skb: types.path(skb, "_nfct")?.offset,
            status: types.path(connection, "status")?.offset,
            tuples: hashes.offset + tuple.offset,
            step: types.size(hash)?,
            src_addr: of("src.u3")?,
            src_port: of("src.u")?,
            dst_addr: of("dst.u3")?,
            dst_port: of("dst.u")?,
            protocol: of("dst.protonum")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the kernel that the tests run on nothing is known but that it works, so this says only that the numbers are plausible; the tests on
    /// real interfaces say that they are right.
    #[test]
    fn the_running_kernel_has_all_of_it() {
        if !Path::new(KERNEL).exists() {
            println!("skipped: this kernel has no BTF");
            return;
        }
        let layout = of_running_kernel().unwrap();
        let offsets = [
            layout.skb_dev,
            layout.skb_protocol,
            layout.skb_head,
            layout.device_index,
            layout.namespace_inode,
        ];
        assert!(
            offsets.iter().all(|offset| (1..8192).contains(offset)),
            "{layout:?}"
        );
        assert!(layout.reason > 0);
    }
}
