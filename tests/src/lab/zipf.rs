//! Zipf's distribution: a few large flows and many small ones, as in real traffic.

/// Draws ranks 0 to n-1, where rank r has a share proportional to 1 / (r + 1)^s, in constant time each (Walker's alias method).
#[derive(Clone, Debug)]
pub struct Zipf {
    /// Slot i answers i below this, of 2^32, and its alias from there on.
    thresholds: Vec<u32>,
    aliases: Vec<u32>,
}

impl Zipf {
    /// A sampler of `ranks` ranks (at least one is taken) with exponent `s`; 0 is the even distribution.
    #[must_use]
    pub fn new(ranks: u32, s: f64) -> Self {
        let count = ranks.max(1);
        let weights: Vec<f64> = (0..count)
            .map(|rank| (f64::from(rank) + 1.0).powf(-s))
            .collect();
        let mean = weights.iter().sum::<f64>() / f64::from(count);
        // Each slot holds one mean weight: filled up, where its own rank has less, from a rank that has more.
        let mut shares: Vec<f64> = weights.iter().map(|weight| weight / mean).collect();
        let mut aliases: Vec<u32> = (0..count).collect();
        let mut thresholds = vec![u32::MAX; shares.len()];
        let (mut small, mut large): (Vec<u32>, Vec<u32>) =
            (0..count).partition(|&rank| shares[rank as usize] < 1.0);
        while let (Some(&donor), Some(receiver)) = (large.last(), small.pop()) {
            let (to, from) = (receiver as usize, donor as usize);
            thresholds[to] = (shares[to] * 4_294_967_296.0) as u32;
            aliases[to] = donor;
            shares[from] -= 1.0 - shares[to];
            if shares[from] < 1.0 {
                large.pop();
                small.push(donor);
            }
        }
        Self {
            thresholds,
            aliases,
        }
    }

    /// The rank that 64 random bits stand for.
    #[must_use]
    pub fn rank(&self, random: u64) -> u32 {
        let slot = (((random >> 32) * self.thresholds.len() as u64) >> 32) as u32;
        let below = (random as u32) < self.thresholds[slot as usize];
        if below {
            slot
        } else {
            self.aliases[slot as usize]
        }
    }
}

/// The `index`th of a reproducible sequence of random numbers (Vigna's SplitMix64, whose state is a plain counter, so that any
/// element can be had without those before it).
#[must_use]
pub fn random(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::{Zipf, random};

    #[test]
    fn shares_follow_the_law() {
        let (ranks, draws) = (100_u32, 200_000_u64);
        let zipf = Zipf::new(ranks, 1.0);
        let mut counts = vec![0_u64; ranks as usize];
        (0..draws).for_each(|index| counts[zipf.rank(random(7, index)) as usize] += 1);
        let harmonic: f64 = (1..=ranks).map(|rank| 1.0 / f64::from(rank)).sum();
        for rank in [1_u32, 2, 10] {
            let expected = draws as f64 / f64::from(rank) / harmonic;
            let counted = counts[rank as usize - 1] as f64;
            assert!(
                (counted / expected - 1.0).abs() < 0.05,
                "rank {rank}: {counted} for {expected}"
            );
        }
        assert!(counts.iter().all(|&count| count > 0));
    }

    #[test]
    fn splitmix64_is_the_published_sequence() {
        // The first outputs of Vigna's splitmix64.c for the seed 1234567.
        let published = [
            6_457_827_717_110_365_317_u64,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
        ];
        for (index, value) in (0..).zip(published) {
            assert_eq!(random(1_234_567, index), value);
        }
    }
}
