//! Texts, each with a number of its own.
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use datafusion::arrow::array::{Array as _, ArrayRef, StringViewArray, UInt32Array};
use datafusion::arrow::compute::take;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use hashbrown::HashMap;

/// The most texts that are numbered of one column.
pub(super) const MOST_TEXTS: usize = 1 << 17;

/// Octets that a text takes besides its own, which are there twice: it is known by each thread, and in the order of the numbers.
const EACH: usize = 128;

/// What all texts of a query may take together, and whether that was enough.
#[derive(Debug)]
pub(crate) struct Bounds {
    pool: Arc<dyn MemoryPool>,
    most: usize,
    exceeded: AtomicBool,
}

impl Bounds {
    /// At most [`MOST_TEXTS`] of each column, as long as the pool has memory for them.
    pub(crate) fn new(pool: Arc<dyn MemoryPool>) -> Self {
        Self {
            pool,
            most: MOST_TEXTS,
            exceeded: AtomicBool::new(false),
        }
    }

    /// Whether the query failed, or will, because there were more.
    pub(crate) fn are_exceeded(&self) -> bool {
        self.exceeded.load(Ordering::Relaxed)
    }
}

/// The texts of one column, numbered from 0 as they come.
pub(super) struct Texts {
    bounds: Arc<Bounds>,
    all: Mutex<All>,
    /// What threads know that are at none right now: to look there needs no lock.
    idle: Mutex<Vec<Known>>,
}

type Known = HashMap<Arc<str>, u32>;

struct All {
    known: Known,
    /// By their numbers.
    texts: Vec<Arc<str>>,
    /// The same, of those that there were when it was made.
    array: Arc<StringViewArray>,
    memory: MemoryReservation,
}

impl fmt::Debug for Texts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Texts").finish_non_exhaustive()
    }
}

impl Texts {
    pub(super) fn new(bounds: Arc<Bounds>) -> Self {
        let memory = MemoryConsumer::new("texts of groups").register(&bounds.pool);
        Self {
            bounds,
            all: Mutex::new(All {
                known: Known::new(),
                texts: Vec::new(),
                array: Arc::new(StringViewArray::new_null(0)),
                memory,
            }),
            idle: Mutex::default(),
        }
    }

    /// The numbers of texts; null of null.
    ///
    /// # Errors
    /// If there are more than the bounds allow.
    pub(super) fn numbers(&self, of: &StringViewArray) -> Result<UInt32Array> {
        let mut idle = lock(&self.idle);
        let mut known = idle.pop().unwrap_or_default();
        drop(idle);
        let numbers = self.numbers_by(&mut known, of);
        lock(&self.idle).push(known);
        numbers
    }

    fn numbers_by(&self, known: &mut Known, of: &StringViewArray) -> Result<UInt32Array> {
        let mut numbers = Vec::with_capacity(of.len());
        // Rows that follow one another often have the same text. Equal views of one array are equal texts.
        let mut last = None;
        for (index, &view) in of.views().iter().enumerate() {
            let number = match last {
                _ if of.is_null(index) => {
                    numbers.push(0);
                    continue;
                }
                Some((same, number)) if same == view => number,
                _ => {
                    let text = of.value(index);
                    match known.get(text) {
                        Some(number) => *number,
                        None => self.learn(known, text)?,
                    }
                }
            };
            last = Some((view, number));
            numbers.push(number);
        }
        Ok(UInt32Array::new(numbers.into(), of.nulls().cloned()))
    }

    fn learn(&self, known: &mut Known, text: &str) -> Result<u32> {
        let mut all = lock(&self.all);
        let (text, number) = match all.known.get_key_value(text) {
            Some((text, number)) => (Arc::clone(text), *number),
            None => all.add(text, &self.bounds)?,
        };
        drop(all);
        known.insert(text, number);
        Ok(number)
    }

    /// The texts of numbers; null of null.
    ///
    /// # Errors
    /// If there is no text with a number.
    pub(super) fn texts(&self, numbers: &UInt32Array) -> Result<ArrayRef> {
        let array = lock(&self.all).array();
        Ok(take(array.as_ref(), numbers, None)?)
    }
}

impl All {
    fn add(&mut self, text: &str, bounds: &Bounds) -> Result<(Arc<str>, u32)> {
        let too_many = || {
            bounds.exceeded.store(true, Ordering::Relaxed);
            DataFusionError::ResourcesExhausted("more texts than are numbered".to_owned())
        };
        let number = u32::try_from(self.texts.len()).map_err(|_| too_many())?;
        if self.texts.len() >= bounds.most {
            return Err(too_many());
        }
        let octets = EACH + 2 * text.len();
        self.memory.try_grow(octets).map_err(|_| too_many())?;
        let text: Arc<str> = text.into();
        self.texts.push(Arc::clone(&text));
        self.known.insert(Arc::clone(&text), number);
        Ok((text, number))
    }

    fn array(&mut self) -> Arc<StringViewArray> {
        if self.array.len() < self.texts.len() {
            self.array = Arc::new(StringViewArray::from_iter_values(&self.texts));
        }
        Arc::clone(&self.array)
    }
}

/// What is locked is whole after each step, also where a thread has panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::AsArray as _;
    use datafusion::execution::memory_pool::{GreedyMemoryPool, UnboundedMemoryPool};

    use super::*;

    fn texts(pool: impl MemoryPool, most: usize) -> Texts {
        Texts::new(Arc::new(Bounds {
            most,
            ..Bounds::new(Arc::new(pool))
        }))
    }

    /// As a view into a buffer, and without one.
    const LONG: &str = "vpc-bp1m7v25emi1h501";
    const SHORT: &str = "in";

    #[test]
    fn a_text_has_one_number_and_gets_back_from_it() {
        let texts = texts(UnboundedMemoryPool::default(), 10);
        let first = [Some(LONG), Some(LONG), None, Some(SHORT), Some("")];
        let second = [
            Some(SHORT),
            None,
            Some("another, which is long too"),
            Some(LONG),
        ];
        let numbers = |of: &[Option<&str>]| {
            let of: StringViewArray = of.iter().copied().collect();
            texts.numbers(&of).unwrap()
        };
        let (one, two) = (numbers(&first), numbers(&second));
        assert_eq!(
            one,
            UInt32Array::from(vec![Some(0), Some(0), None, Some(1), Some(2)])
        );
        assert_eq!(
            two,
            UInt32Array::from(vec![Some(1), None, Some(3), Some(0)])
        );
        for (of, numbers) in [(&first[..], one), (&second[..], two)] {
            let back = texts.texts(&numbers).unwrap();
            let back: Vec<_> = back.as_string_view().iter().collect();
            assert_eq!(back, of);
        }
    }

    #[test]
    fn threads_give_one_number_to_a_text() {
        let texts = texts(UnboundedMemoryPool::default(), 10_000);
        let of: Vec<String> = (0..5000).map(|number| format!("10.0.{number}")).collect();
        let of = StringViewArray::from_iter_values(&of);
        let numbers = std::thread::scope(|scope| {
            let threads = [(); 4].map(|()| scope.spawn(|| texts.numbers(&of).unwrap()));
            threads.map(|thread| thread.join().unwrap())
        });
        for other in &numbers {
            assert_eq!(other, &numbers[0]);
            assert_eq!(texts.texts(other).unwrap().as_string_view(), &of);
        }
    }

    #[test]
    fn more_than_the_bounds_allow_is_told() {
        let of = StringViewArray::from_iter_values(["a", "b", "a", "c"]);
        for (texts, fits) in [
            (texts(UnboundedMemoryPool::default(), 3), true),
            (texts(UnboundedMemoryPool::default(), 2), false),
            (texts(GreedyMemoryPool::new(3 * (EACH + 2)), 3), true),
            (texts(GreedyMemoryPool::new(3 * (EACH + 2) - 1), 3), false),
        ] {
            assert_eq!(texts.numbers(&of).is_ok(), fits);
            assert_eq!(texts.bounds.are_exceeded(), !fits);
        }
    }
}
