//! What the agent captures on real interfaces: veth pairs in namespaces that each test makes for itself.

#[cfg(test)]
mod conservation;
#[cfg(test)]
mod gso;
#[cfg(test)]
mod harmless;
#[cfg(test)]
mod hooks;
#[cfg(test)]
mod layout;
#[cfg(test)]
mod leftovers;
#[cfg(test)]
mod others;
#[cfg(test)]
mod support;
#[cfg(test)]
mod tunnel;
