//! The Merkle tree of RFC 6962 over a log's records, kept as the roots of its complete subtrees: what has to be known to
//! add a record and to name the whole.

use sha2::{Digest, Sha256};

use super::Hash;

/// Most complete subtrees of a tree of 2^64 records.
const SUBTREES_MAX: usize = 64;

const HASH_BYTES: usize = 32;

/// A tree that grows at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    size: u64,
    /// One root for each set bit of the size, the largest subtree first.
    subtrees: Vec<Hash>,
}

impl Tree {
    /// The tree of no records.
    pub const EMPTY: Self = Self { size: 0, subtrees: Vec::new() };

    /// A tree from its size and the bytes of [`Tree::subtrees`]. `None` where they do not belong together.
    pub fn restore(size: u64, subtrees: &[u8]) -> Option<Self> {
        let (hashes, []) = subtrees.as_chunks::<HASH_BYTES>() else { return None };
        let is_fitting = u32::try_from(hashes.len()) == Ok(size.count_ones());
        is_fitting.then(|| Self { size, subtrees: hashes.iter().copied().map(Hash).collect() })
    }

    /// How many records it holds.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The roots of its complete subtrees, the largest first.
    pub fn roots(&self) -> &[Hash] {
        &self.subtrees
    }

    /// The same one after the other: at most 2 KiB.
    pub fn subtrees(&self) -> Vec<u8> {
        self.subtrees.iter().take(SUBTREES_MAX).flat_map(|hash| hash.0).collect()
    }

    /// Adds a record at the end.
    pub fn push(&mut self, record: &[u8]) {
        self.push_subtree(0, leaf(record));
    }

    /// This tree grown to `size` records by an [`Extension`]'s subtrees. `None` where there are too few or too many of them.
    ///
    /// Only a log whose first records are those of this tree can name subtrees that lead to its own root.
    pub fn extended(&self, size: u64, subtrees: &[Hash]) -> Option<Self> {
        let mut grown = self.clone();
        for hash in subtrees {
            let left = size.checked_sub(grown.size).filter(|left| 0 < *left)?;
            grown.push_subtree(grown.size.trailing_zeros().min(left.ilog2()), *hash);
        }
        (grown.size == size).then_some(grown)
    }

    /// Adds a complete subtree of `2^level` records, which is as large as the place at the end allows or smaller.
    fn push_subtree(&mut self, level: u32, mut hash: Hash) {
        // Two complete subtrees of one size are one of the next.
        let mut smaller = self.size.checked_shr(level).unwrap_or(0);
        while smaller & 1 == 1 {
            let Some(left) = self.subtrees.pop() else { break };
            hash = node(left, hash);
            smaller >>= 1;
        }
        self.subtrees.push(hash);
        self.size = self.size.saturating_add(1_u64.checked_shl(level).unwrap_or(u64::MAX));
    }

    /// The name of all records in their order.
    pub fn root(&self) -> Hash {
        let mut roots = self.subtrees.iter().rev().copied();
        match roots.next() {
            None => Hash::of(&[]),
            Some(last) => roots.fold(last, |right, left| node(left, right)),
        }
    }
}

/// What a log has grown by since it held so many records: the roots of the largest complete subtrees over the newer ones.
///
/// At most 126 hashes, made from the newer records alone. Whoever has the [`Tree`] of the older ones checks with
/// [`Tree::extended`] that the log only grew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extension {
    size: u64,
    subtrees: Vec<(u32, Hash)>,
}

impl Extension {
    /// Nothing yet, after so many records.
    pub const fn after(size: u64) -> Self {
        Self { size, subtrees: Vec::new() }
    }

    /// Adds the next record.
    pub fn push(&mut self, record: &[u8]) {
        let (mut level, mut hash) = (0, leaf(record));
        self.size = self.size.saturating_add(1);
        while self.size.trailing_zeros() > level
            && let Some((_, left)) = self.subtrees.pop_if(|(before, _)| *before == level)
        {
            (level, hash) = (level.saturating_add(1), node(left, hash));
        }
        self.subtrees.push((level, hash));
    }

    /// The subtrees' roots in order.
    pub fn subtrees(&self) -> Vec<Hash> {
        self.subtrees.iter().map(|(_, hash)| *hash).collect()
    }
}

fn leaf(record: &[u8]) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update([0]);
    hasher.update(record);
    Hash(hasher.finalize().into())
}

fn node(left: Hash, right: Hash) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update([1]);
    hasher.update(left.0);
    hasher.update(right.0);
    Hash(hasher.finalize().into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The leaves and roots that the reference implementations of Certificate Transparency test with.
    const LEAVES: [&[u8]; 8] = [
        b"",
        b"\x00",
        b"\x10",
        b"\x20\x21",
        b"\x30\x31",
        b"\x40\x41\x42\x43",
        b"\x50\x51\x52\x53\x54\x55\x56\x57",
        b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
    ];
    const ROOTS: [&str; 9] = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];

    #[test]
    fn the_known_roots_come_out() {
        let mut tree = Tree::EMPTY;
        assert_eq!(tree.root().to_string(), ROOTS[0]);
        for (leaf, root) in LEAVES.iter().zip(&ROOTS[1..]) {
            tree.push(leaf);
            assert_eq!(tree.root().to_string(), *root);
        }
    }

    /// The definition of RFC 6962, 2.1, word by word.
    fn defined(records: &[Vec<u8>]) -> Hash {
        match records {
            [] => Hash::of(&[]),
            [record] => leaf(record),
            _ => {
                let split = records.len().next_power_of_two() / 2;
                node(defined(&records[..split]), defined(&records[split..]))
            }
        }
    }

    proptest! {
        #[test]
        fn it_is_the_tree_of_the_definition_and_goes_on_from_its_subtrees(
            records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..4), 0..70), at in 0_usize..70
        ) {
            let mut tree = Tree::EMPTY;
            for (index, record) in records.iter().enumerate() {
                if index == at {
                    tree = Tree::restore(tree.size(), &tree.subtrees()).expect("belong together");
                }
                tree.push(record);
            }
            prop_assert_eq!(tree.root(), defined(&records));
            prop_assert_eq!(tree.size(), records.len() as u64);
        }
    }

    fn tree_of(records: &[Vec<u8>]) -> Tree {
        let mut tree = Tree::EMPTY;
        records.iter().for_each(|record| tree.push(record));
        tree
    }

    fn extension(records: &[Vec<u8>], from: usize) -> Vec<Hash> {
        let mut extension = Extension::after(from as u64);
        records[from..].iter().for_each(|record| extension.push(record));
        extension.subtrees()
    }

    #[test]
    fn every_longer_log_extends_every_shorter_one_and_a_changed_past_extends_none() {
        let records: Vec<Vec<u8>> = (0_u8..34).map(|number| vec![number]).collect();
        for to in 0..records.len() {
            for from in 0..=to {
                let (old, new) = (tree_of(&records[..from]), tree_of(&records[..to]));
                let grown = extension(&records[..to], from);
                assert_eq!(old.extended(to as u64, &grown), Some(new.clone()), "{from} to {to}");
                assert!(grown.len() <= 12, "{from} to {to}: {}", grown.len());
                for changed in 0..from {
                    let mut other = records[..to].to_vec();
                    other[changed] = vec![200];
                    let root = old.extended(to as u64, &extension(&other, from)).map(|tree| tree.root());
                    assert_ne!(root, Some(tree_of(&other).root()), "{from} to {to}, {changed} changed");
                }
            }
        }
    }

    #[test]
    fn too_few_and_too_many_subtrees_are_refused() {
        let records: Vec<Vec<u8>> = (0_u8..9).map(|number| vec![number]).collect();
        let (old, grown) = (tree_of(&records[..5]), extension(&records, 5));
        assert!(old.extended(9, &grown).is_some());
        assert_eq!(old.extended(9, &grown[1..]), None);
        assert_eq!(old.extended(9, &[grown.clone(), vec![grown[0]]].concat()), None);
        assert_eq!(old.extended(4, &grown), None);
        assert_eq!(old.extended(4, &[]), None);
        assert_eq!(old.extended(5, &[]), Some(old.clone()));
        let huge = tree_of(&records[..1]).extended(u64::MAX, &[Hash([1; 32]); 200]);
        assert_eq!(huge, None);
    }

    #[test]
    fn subtrees_of_another_size_are_refused() {
        assert_eq!(Tree::restore(3, &[0; 32]), None);
        assert_eq!(Tree::restore(1, &[0; 33]), None);
        assert_eq!(Tree::restore(0, &[]), Some(Tree::EMPTY));
    }
}
