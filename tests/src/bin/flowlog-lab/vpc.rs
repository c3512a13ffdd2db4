//! The lab's VPC: three VMs in two VSwitches, and the router between them.
//!
//! As in a cloud, a VM reaches everything, its own VSwitch included, by way of the router: each has a wire of its own to it.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use flowlog_tests::{
    Result,
    lab::{EndPlan, Mac, Namespace, VethPair, VethPlan},
};

/// The VPC's id, which the demo's flow log captures.
pub(crate) const VPC_ID: &str = "vpc-lab";

/// The account of its ENIs.
pub(crate) const ACCOUNT_ID: &str = "100000000001";

/// The region of its ENIs.
pub(crate) const REGION: &str = "lab";

/// Name of the interface inside each VM.
pub(crate) const GUEST_DEVICE: &str = "eth0";

/// What is known of a VM before it is made.
#[derive(Debug)]
pub(crate) struct VmPlan {
    /// Its name in the lab, and of its namespace's label.
    pub(crate) name: &'static str,
    /// Its ENI.
    pub(crate) eni_id: &'static str,
    /// The ENI's VSwitch.
    pub(crate) vswitch_id: &'static str,
    /// Number of the VSwitch, in all its addresses.
    pub(crate) vswitch: u8,
    /// Number of the VM in its VSwitch, from 2.
    pub(crate) host: u8,
    /// The agent captures the ENI on the router's end of its wire, as a hypervisor does, instead of inside the VM.
    pub(crate) host_side: bool,
    /// The security group that is enforced at its ENI.
    pub(crate) security_group: Option<&'static str>,
}

/// The three VMs.
pub(crate) const VMS: [VmPlan; 3] = [
    VmPlan {
        name: "web",
        eni_id: "eni-web",
        vswitch_id: "vsw-front",
        vswitch: 1,
        host: 10,
        host_side: false,
        security_group: None,
    },
    VmPlan {
        name: "app",
        eni_id: "eni-app",
        vswitch_id: "vsw-back",
        vswitch: 2,
        host: 10,
        host_side: false,
        security_group: None,
    },
    VmPlan {
        name: "db",
        eni_id: "eni-db",
        vswitch_id: "vsw-back",
        vswitch: 2,
        host: 20,
        host_side: true,
        security_group: Some("sg-db"),
    },
];

impl VmPlan {
    /// Its IPv4 address.
    pub(crate) fn v4(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, self.vswitch, self.host)
    }

    /// Its IPv6 address. The last group shows the host's number in decimal digits.
    pub(crate) fn v6(&self) -> Ipv6Addr {
        let host = u16::from(self.host / 10) * 16 + u16::from(self.host % 10);
        Ipv6Addr::new(0xfd00, self.vswitch.into(), 0, 0, 0, 0, 0, host)
    }

    /// Its VSwitch's gateway, an address of the router.
    fn gateways(&self) -> (Ipv4Addr, Ipv6Addr) {
        (
            Ipv4Addr::new(10, 0, self.vswitch, 1),
            Ipv6Addr::new(0xfd00, self.vswitch.into(), 0, 0, 0, 0, 0, 1),
        )
    }

    /// MAC address of its interface.
    pub(crate) fn mac(&self) -> Mac {
        [0x02, 0xf1, 0, self.vswitch, 0, self.host]
    }

    /// MAC address of the router's end of its wire.
    pub(crate) fn router_mac(&self) -> Mac {
        [0x02, 0xf1, 0, self.vswitch, 1, self.host]
    }

    /// Name of the router's end of its wire.
    pub(crate) fn router_device(&self) -> String {
        format!("tap-{}", self.name)
    }
}

/// A VM that runs, so to speak.
#[derive(Debug)]
pub(crate) struct Vm {
    /// What was planned.
    pub(crate) plan: &'static VmPlan,
    /// Where it is.
    pub(crate) namespace: Namespace,
}

/// The VPC; gone when dropped.
#[derive(Debug)]
pub(crate) struct Vpc {
    /// Before the namespaces, so that it is dropped first.
    _wires: Vec<VethPair>,
    /// The router.
    pub(crate) router: Namespace,
    /// The VMs, in the order of [`VMS`].
    pub(crate) vms: [Vm; 3],
}

impl Vpc {
    /// Makes it.
    ///
    /// # Errors
    ///
    /// Without root, `ip` or veth. Nothing is left behind.
    pub(crate) fn create() -> Result<Self> {
        let router = Namespace::create("router")?;
        router.set_sysctl("ipv4/ip_forward", "1")?;
        router.set_sysctl("ipv6/conf/all/forwarding", "1")?;
        let [web, app, db] = &VMS;
        let (web, web_wire) = plug_in(web, &router)?;
        let (app, app_wire) = plug_in(app, &router)?;
        let (db, db_wire) = plug_in(db, &router)?;
        Ok(Self {
            _wires: vec![web_wire, app_wire, db_wire],
            router,
            vms: [web, app, db],
        })
    }
}

/// Makes a VM and its wire to the router. Both ends have host addresses alone, and a route to what is behind the other end.
fn plug_in(plan: &'static VmPlan, router: &Namespace) -> Result<(Vm, VethPair)> {
    let namespace = Namespace::create(plan.name)?;
    let (gateway_v4, gateway_v6) = plan.gateways();
    let single = |v4: Ipv4Addr, v6: Ipv6Addr| vec![(IpAddr::V4(v4), 32), (IpAddr::V6(v6), 128)];
    let wire = VethPair::create(VethPlan::new(
        EndPlan {
            namespace: namespace.clone(),
            name: GUEST_DEVICE.to_owned(),
            mac: plan.mac(),
            addresses: single(plan.v4(), plan.v6()),
        },
        EndPlan {
            namespace: router.clone(),
            name: plan.router_device(),
            mac: plan.router_mac(),
            addresses: single(gateway_v4, gateway_v6),
        },
    ))?;
    let (v4, v6) = (plan.v4().to_string(), plan.v6().to_string());
    let (gateway_v4, gateway_v6) = (gateway_v4.to_string(), gateway_v6.to_string());
    let tap = plan.router_device();
    for gateway in [&gateway_v4, &gateway_v6] {
        let default = if gateway.contains(':') {
            "::/0"
        } else {
            "0.0.0.0/0"
        };
        namespace.ip(&[
            "route",
            "add",
            default,
            "via",
            gateway,
            "dev",
            GUEST_DEVICE,
            "onlink",
        ])?;
    }
    for address in [&v4, &v6] {
        router.ip(&["route", "add", address, "dev", &tap])?;
    }
    Ok((Vm { plan, namespace }, wire))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::VMS;

    #[test]
    fn every_vm_has_addresses_and_an_eni_of_its_own() {
        let v4: HashSet<_> = VMS.iter().map(super::VmPlan::v4).collect();
        let v6: HashSet<_> = VMS.iter().map(super::VmPlan::v6).collect();
        let macs: HashSet<_> = VMS
            .iter()
            .flat_map(|vm| [vm.mac(), vm.router_mac()])
            .collect();
        let enis: HashSet<_> = VMS.iter().map(|vm| vm.eni_id).collect();
        assert_eq!((v4.len(), v6.len(), macs.len(), enis.len()), (3, 3, 6, 3));
    }

    #[test]
    fn the_last_group_of_an_ipv6_address_reads_as_the_last_of_the_ipv4_address() {
        assert_eq!(VMS[2].v4().to_string(), "10.0.2.20");
        assert_eq!(VMS[2].v6().to_string(), "fd00:2::20");
    }
}
