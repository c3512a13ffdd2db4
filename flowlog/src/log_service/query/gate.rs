//! Whose turn it is: so many queries at once, the others in a queue for each account. A turn that is free goes to the accounts in rotation,
//! so that one with many queries does not hold up the others.
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::error::QueryError;

/// Lets so many in at once.
#[derive(Debug)]
pub(crate) struct Gate {
    most_running: usize,
    most_waiting: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    running: usize,
    /// Those who wait, by account. No queue is empty.
    queues: HashMap<String, VecDeque<oneshot::Sender<Turn>>>,
    /// The accounts that have a queue, the next one first.
    rotation: VecDeque<String>,
}

/// The right to run; whoever has it gives it back by dropping it.
#[derive(Debug)]
pub(crate) struct Turn(Option<Arc<Gate>>);

impl Gate {
    pub(crate) fn new(most_running: usize, most_waiting: usize) -> Arc<Self> {
        Arc::new(Self {
            most_running: most_running.max(1),
            most_waiting,
            state: Mutex::default(),
        })
    }

    /// Waits for a turn. Whoever gives up waiting leaves the queue.
    ///
    /// # Errors
    /// [`QueryError::Busy`] if too many wait already.
    pub(crate) async fn enter(self: &Arc<Self>, account: &str) -> Result<Turn, QueryError> {
        let turn = {
            let mut state = self.lock();
            if state.running < self.most_running {
                state.running += 1;
                return Ok(Turn(Some(Arc::clone(self))));
            }
            state.forget_who_left();
            let waiting = state.queues.values().map(VecDeque::len).sum();
            if waiting >= self.most_waiting {
                return Err(QueryError::Busy { waiting });
            }
            state.queue(account)
        };
        // The gate outlives its queue, so that it always sends.
        turn.await
            .map_err(|_| QueryError::Internal("the queue of queries is gone".to_owned()))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn queue(&mut self, account: &str) -> oneshot::Receiver<Turn> {
        let (sender, receiver) = oneshot::channel();
        let queue = self.queues.entry(account.to_owned()).or_default();
        if queue.is_empty() {
            self.rotation.push_back(account.to_owned());
        }
        queue.push_back(sender);
        receiver
    }

    /// Who is next; none if nobody waits.
    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        let account = self.rotation.pop_front()?;
        let queue = self.queues.get_mut(&account)?;
        let next = queue.pop_front();
        if queue.is_empty() {
            self.queues.remove(&account);
        } else {
            self.rotation.push_back(account);
        }
        next
    }

    fn forget_who_left(&mut self) {
        self.queues.retain(|_, queue| {
            queue.retain(|sender| !sender.is_closed());
            !queue.is_empty()
        });
        let queues = &self.queues;
        self.rotation.retain(|account| queues.contains_key(account));
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(gate) = self.0.take() else { return };
        let mut state = gate.lock();
        while let Some(next) = state.next() {
            match next.send(Self(Some(Arc::clone(&gate)))) {
                Ok(()) => return,
                // Who left does not give the turn back: it goes to the one after.
                Err(mut turn) => turn.0 = None,
            }
        }
        state.running -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    type Waiting = Pin<Box<dyn Future<Output = Result<Turn, QueryError>>>>;

    fn enter(gate: &Arc<Gate>, account: &'static str) -> Waiting {
        let gate = Arc::clone(gate);
        Box::pin(async move { gate.enter(account).await })
    }

    fn poll(waiting: &mut Waiting) -> Option<Result<Turn, QueryError>> {
        match waiting
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(turn) => Some(turn),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_turn_goes_to_the_accounts_in_rotation() {
        let gate = Gate::new(1, 10);
        let mut turn = poll(&mut enter(&gate, "a")).unwrap().unwrap();
        let mut waiting: Vec<(&str, Waiting)> = ["a1", "a2", "a3", "b1", "b2", "c1"]
            .into_iter()
            .map(|name| (name, enter(&gate, &name[..1])))
            .collect();
        assert!(
            waiting
                .iter_mut()
                .all(|(_, waiting)| poll(waiting).is_none())
        );
        let mut order = Vec::new();
        while !waiting.is_empty() {
            drop(turn);
            let mut entered = Vec::new();
            waiting.retain_mut(|(name, waiting)| match poll(waiting) {
                Some(got) => {
                    entered.push((*name, got.unwrap()));
                    false
                }
                None => true,
            });
            assert_eq!(entered.len(), 1, "one turn, one who has it");
            let (name, got) = entered.remove(0);
            order.push(name);
            turn = got;
        }
        assert_eq!(order, ["a1", "b1", "c1", "a2", "b2", "a3"]);
        drop(turn);
        assert!(
            poll(&mut enter(&gate, "a")).is_some(),
            "nothing is left over"
        );
    }

    #[test]
    fn who_leaves_takes_no_turn_and_no_place() {
        let gate = Gate::new(1, 1);
        let turn = poll(&mut enter(&gate, "a")).unwrap().unwrap();
        let mut first = enter(&gate, "a");
        assert!(poll(&mut first).is_none());
        assert!(matches!(
            poll(&mut enter(&gate, "b")),
            Some(Err(QueryError::Busy { waiting: 1 }))
        ));
        drop(first);
        let mut second = enter(&gate, "b");
        assert!(
            poll(&mut second).is_none(),
            "the place of the one that left is free"
        );
        drop(turn);
        // It has its turn, without having looked, and leaves.
        drop(second);
        assert!(poll(&mut enter(&gate, "c")).is_some());
    }
}
