//! ACCEPT and REJECT, end to end: a real agent whose ENI is a VM's end of a wire, security groups in its inventory, and firewalls in the
//! namespaces at both ends. All of it needs root.
#[cfg(test)]
mod again;
#[cfg(test)]
mod cases;
#[cfg(test)]
mod change;
#[cfg(test)]
mod connection;
#[cfg(test)]
mod crashes;
#[cfg(test)]
mod dead;
#[cfg(test)]
mod firewall;
#[cfg(test)]
mod frames;
#[cfg(test)]
mod full;
#[cfg(test)]
mod groups;
#[cfg(test)]
mod harmless;
#[cfg(test)]
mod refused;
#[cfg(test)]
mod scene;
#[cfg(test)]
mod sessions;
