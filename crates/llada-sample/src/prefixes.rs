//! Keys and values of requests that have ended, for those that begin alike.

use llada_diffusion::KvCache;

use crate::Result;

/// Caches of a causal model, the one that was used least recently first. What such a model computes
/// of a beginning, or of whole blocks of it, is the same in every sequence.
#[derive(Debug, Default)]
pub(crate) struct Prefixes {
    /// Bytes of all caches, at most.
    pub(crate) limit: usize,
    kept: Vec<Prefix>,
}

#[derive(Debug)]
struct Prefix {
    /// The tokens whose keys and values are known.
    tokens: Vec<u32>,
    cache: KvCache,
}

impl Prefixes {
    /// What is known of the longest beginning of a prompt, in whole blocks of `block` tokens: a
    /// cache for a sequence of `length` tokens.
    ///
    /// # Errors
    /// If the runtime fails.
    pub(crate) fn of(
        &mut self,
        prompt: &[u32],
        block: usize,
        length: usize,
    ) -> Result<Option<KvCache>> {
        let common = |tokens: &[u32]| {
            let pairs = tokens.iter().zip(prompt);
            pairs.take_while(|(a, b)| a == b).count() / block * block
        };
        let lengths = self.kept.iter().map(|kept| common(&kept.tokens));
        let longest = lengths.enumerate().max_by_key(|(_, n)| *n);
        let Some((at, n)) = longest.filter(|(_, n)| *n > 0) else {
            return Ok(None);
        };
        let prefix = self.kept.remove(at);
        let copy = prefix.cache.beginning(n, length);
        self.kept.push(prefix);
        Ok(Some(copy?))
    }

    /// Keeps what is known of the tokens, if there is room, in the place of what begins them.
    pub(crate) fn keep(&mut self, tokens: &[u32], cache: KvCache) {
        let tokens = tokens.to_vec();
        if tokens.is_empty() || cache.bytes() > self.limit {
            return;
        }
        if let Some(at) = (self.kept.iter()).position(|kept| kept.tokens.starts_with(&tokens)) {
            let longer = self.kept.remove(at);
            self.kept.push(longer);
            return;
        }
        self.kept.retain(|kept| !tokens.starts_with(&kept.tokens));
        self.kept.push(Prefix { tokens, cache });
        let bytes = |kept: &[Prefix]| kept.iter().map(|x| x.cache.bytes()).sum::<usize>();
        while bytes(&self.kept) > self.limit {
            self.kept.remove(0);
        }
    }
}
