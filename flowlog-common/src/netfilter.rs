//! What the program that sees netfilter's drops is told: which devices are ENIs, and where the running kernel keeps what it must read.

/// Devices that can be in the map of devices: twice the ENIs, for a device may be replaced before its predecessor is removed.
pub const MAX_DEVICES: u32 = 2 * crate::MAX_ENIS;

/// Which device. An interface index is of one network namespace alone.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceKey {
    /// Inode number of the network namespace, as `/proc/PID/ns/net` has it (`ns.inum` in the kernel).
    pub namespace: u32,
    /// Interface index.
    pub index: u32,
}

/// Which ENI a device is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Slot of the ENI, less than [`MAX_ENIS`](crate::MAX_ENIS).
    pub slot: u32,
    /// 1 where the device is the host's end of the VM's link, so that what it receives is the ENI's `out`; else 0.
    pub host_side: u32,
}

/// Where the running kernel keeps what must be read of a packet that it drops, and the number that says why. User space finds all of it
/// in the kernel's BTF. What is not said otherwise is the offset of the named field in its struct, in octets; [`KernelLayout::ABSENT`]
/// where a field may be missing and is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelLayout {
    /// `SKB_DROP_REASON_NETFILTER_DROP` of `enum skb_drop_reason`.
    pub reason: u32,
    /// `struct sk_buff`: `dev`.
    pub skb_dev: u32,
    /// `skb_iif`.
    pub skb_iif: u32,
    /// `protocol`.
    pub skb_protocol: u32,
    /// `network_header`, of 16 bits.
    pub skb_network_header: u32,
    /// `head`.
    pub skb_head: u32,
    /// `data`.
    pub skb_data: u32,
    /// `len`.
    pub skb_len: u32,
    /// `data_len`.
    pub skb_data_len: u32,
    /// `end`: itself an offset of 32 bits from `head`, on machines of 64 bits.
    pub skb_end: u32,
    /// `next`.
    pub skb_next: u32,
    /// `cb`.
    pub skb_cb: u32,
    /// `_skb_refdst`.
    pub skb_dst: u32,
    /// `_nfct`; absent without connection tracking.
    pub skb_connection: u32,
    /// `struct skb_shared_info`: `gso_size`.
    pub shared_gso_size: u32,
    /// `gso_segs`.
    pub shared_gso_segs: u32,
    /// `frag_list`.
    pub shared_frag_list: u32,
    /// `struct inet_skb_parm`: `iif`.
    pub ipv4_iif: u32,
    /// `frag_max_size`.
    pub ipv4_frag_max_size: u32,
    /// `struct inet6_skb_parm`: `frag_max_size`; absent without IPv6.
    pub ipv6_frag_max_size: u32,
    /// `struct dst_entry`: `dev`.
    pub dst_dev: u32,
    /// `struct net_device`: `ifindex`.
    pub device_index: u32,
    /// `nd_net.net`.
    pub device_namespace: u32,
    /// `struct net`: `ns.inum`.
    pub namespace_inode: u32,
    /// `struct nf_conn`: `status`; absent, as all that follow, without connection tracking.
    pub connection_status: u32,
    /// `tuplehash[0].tuple`.
    pub connection_tuples: u32,
    /// From there to `tuplehash[1].tuple`.
    pub tuple_step: u32,
    /// `struct nf_conntrack_tuple`: `src.u3`.
    pub tuple_src_addr: u32,
    /// `src.u`.
    pub tuple_src_port: u32,
    /// `dst.u3`.
    pub tuple_dst_addr: u32,
    /// `dst.u`.
    pub tuple_dst_port: u32,
    /// `dst.protonum`.
    pub tuple_protocol: u32,
}

impl KernelLayout {
    /// Stands for a field that this kernel does not have.
    pub const ABSENT: u32 = u32::MAX;
}

assert_layout! {
    DeviceKey: 8, 4;
    Device: 8, 4;
    KernelLayout: 128, 4;
}
