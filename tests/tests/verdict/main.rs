//! ACCEPT and REJECT, end to end: a real agent whose ENI is a VM's end of a wire, security groups in its inventory, and firewalls in the
//! namespaces at both ends. All of it needs root.
mod change;
mod crashes;
mod firewall;
mod frames;
mod groups;
mod scene;
mod sessions;
