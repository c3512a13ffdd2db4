//! Nothing is lost: what crossed the interfaces is in the records once, whatever happens to the agent, to its disk and to those who take
//! the records.

#[cfg(test)]
mod clock;
#[cfg(test)]
mod interfaces;
#[cfg(test)]
mod kills;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod restarts;
#[cfg(test)]
mod scene;
#[cfg(test)]
mod sinks;
#[cfg(test)]
mod status;
#[cfg(test)]
mod variant;
#[cfg(test)]
mod verdicts;
