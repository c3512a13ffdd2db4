//! What the demo tells a newcomer: what the lab is, what goes on in it, how to read the table, how to stop.

/// The lab.
pub(crate) const MAP: &str = "
  vpc-lab
    vsw-front 10.0.1.0/24 fd00:1::/64                vsw-back 10.0.2.0/24 fd00:2::/64

    ┌──────────────────────────────┐   ┌────────┐   ┌──────────────────────────────┐
    │ web   10.0.1.10  fd00:1::10  │   │        │   │ app   10.0.2.10  fd00:2::10  │
    │ eni-web, on its eth0         ├───┤ router ├───┤ eni-app, on its eth0         │
    └──────────────────────────────┘   │        │   ├──────────────────────────────┤
                                       │        │   │ db    10.0.2.20  fd00:2::20  │
                                       │ tap-db ├───┤ eni-db, on the router's end  │
                                       └────────┘   └──────────────────────────────┘
";

/// What goes on in it.
pub(crate) const TRAFFIC: &str = "
  web → app   HTTP over IPv4 and IPv6, DNS
  web → db    ping, a telnet that is refused, and SSH, which db's security group rejects
  app → db    SQL, an SCTP packet that is refused by ICMP
  app → web   IPv6 ping, a syslog message in fragments
  db  → web   a backup of 8 MB every 15 s
";

/// How to read the table.
pub(crate) const LEGEND: &str = "
  in and out are as the VM sees them, so what goes from one VM to another is recorded at both their ENIs.
  FLAGS are TCP's, seen in the window: S SYN, A ACK, P PSH, F FIN, R RST.
";

#[cfg(test)]
mod tests {
    use super::{LEGEND, MAP, TRAFFIC};
    use crate::vpc::{VMS, VPC_ID};

    #[test]
    fn the_map_shows_what_is_made() {
        assert!(MAP.contains(VPC_ID));
        for vm in &VMS {
            let addresses = format!("{:<5} {}  {}", vm.name, vm.v4(), vm.v6());
            for shown in [addresses.as_str(), vm.eni_id, vm.vswitch_id] {
                assert!(MAP.contains(shown), "{shown}");
            }
            assert_eq!(MAP.contains(&vm.router_device()), vm.host_side);
        }
    }

    #[test]
    fn it_fits_a_terminal() {
        for line in [MAP, TRAFFIC, LEGEND].iter().flat_map(|text| text.lines()) {
            assert!(line.chars().count() <= 110, "{line}");
        }
    }
}
