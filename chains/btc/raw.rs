//! Transactions as bytes, walked without copying: where outputs, inputs and witnesses stand (BIP144).

use bitcoin::hashes::{Hash, HashEngine, sha256d};

/// A coinbase spends this output of the transaction zero.
const NO_OUTPUT: u32 = u32::MAX;
/// From this sequence number on, an input forbids replacement (BIP125).
const FINAL_FROM: u32 = 0xffff_fffe;

/// Not a transaction, or not all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a transaction's bytes end early or make no sense")]
pub struct Broken;

/// One output, where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Output<'a> {
    pub vout: u32,
    pub sats: u64,
    pub script: &'a [u8],
}

/// What one input spends, its transaction in the order in which it is hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Input {
    pub txid: [u8; 32],
    pub vout: u32,
}

/// A transaction whose outputs were visited.
#[derive(Debug, Clone, Copy)]
pub struct Tx<'a> {
    /// As it was sent, witnesses included.
    whole: &'a [u8],
    /// From the number of inputs to the end of the outputs: what the txid is made of, without version and lock time.
    body: &'a [u8],
    pub has_witness: bool,
    pub is_coinbase: bool,
    /// An input says that the transaction may be replaced.
    pub is_replaceable: bool,
}

/// The front of what was not read yet.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Broken> {
        let (front, rest) = self.0.split_at_checked(count).ok_or(Broken)?;
        self.0 = rest;
        Ok(front)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Broken> {
        let (front, rest) = self.0.split_first_chunk::<N>().ok_or(Broken)?;
        self.0 = rest;
        Ok(*front)
    }

    /// A compact size. Counts that could not fit into what is left are broken, whatever they count.
    pub fn count(&mut self) -> Result<usize, Broken> {
        let [first] = self.array()?;
        let count = match first {
            0xfd => u64::from(u16::from_le_bytes(self.array()?)),
            0xfe => u64::from(u32::from_le_bytes(self.array()?)),
            0xff => u64::from_le_bytes(self.array()?),
            small => u64::from(small),
        };
        usize::try_from(count).ok().filter(|count| *count <= self.0.len()).ok_or(Broken)
    }

    fn script(&mut self) -> Result<&'a [u8], Broken> {
        let length = self.count()?;
        self.take(length)
    }

    /// Walks over one transaction and shows each of its outputs.
    pub fn tx(&mut self, each: impl FnMut(Output<'a>)) -> Result<Tx<'a>, Broken> {
        self.tx_with_inputs(|_| {}, each)
    }

    /// Shows each of its inputs too.
    pub fn tx_with_inputs(
        &mut self,
        mut input: impl FnMut(Input),
        mut output: impl FnMut(Output<'a>),
    ) -> Result<Tx<'a>, Broken> {
        let start = self.0;
        self.take(4)?;
        // A transaction without inputs is none; a zero here announces witnesses.
        let has_witness = self.0.first() == Some(&0);
        if has_witness && self.take(2)?[1] != 1 {
            return Err(Broken);
        }
        let body = self.0;
        let inputs = self.count()?;
        let (mut is_coinbase, mut is_replaceable) = (false, false);
        for _ in 0..inputs {
            let previous: [u8; 32] = self.array()?;
            let vout = u32::from_le_bytes(self.array()?);
            is_coinbase |= inputs == 1 && vout == NO_OUTPUT && previous == [0; 32];
            input(Input { txid: previous, vout });
            self.script()?;
            is_replaceable |= u32::from_le_bytes(self.array()?) < FINAL_FROM;
        }
        let outputs = self.count()?;
        for vout in 0..outputs {
            let sats = u64::from_le_bytes(self.array()?);
            let script = self.script()?;
            output(Output { vout: u32::try_from(vout).map_err(|_| Broken)?, sats, script });
        }
        let body = &body[..body.len() - self.0.len()];
        if has_witness {
            for _ in 0..inputs {
                for _ in 0..self.count()? {
                    self.script()?;
                }
            }
        }
        self.take(4)?;
        if inputs == 0 || outputs == 0 {
            return Err(Broken);
        }
        let whole = &start[..start.len() - self.0.len()];
        Ok(Tx { whole, body, has_witness, is_coinbase, is_replaceable: is_replaceable && !is_coinbase })
    }
}

impl<'a> Tx<'a> {
    /// In the order in which it is hashed; people read it backwards.
    pub fn txid(&self) -> sha256d::Hash {
        if !self.has_witness {
            return self.wtxid();
        }
        let mut engine = sha256d::Hash::engine();
        engine.input(&self.whole[..4]);
        engine.input(self.body);
        engine.input(&self.whole[self.whole.len() - 4..]);
        sha256d::Hash::from_engine(engine)
    }

    /// The hash of everything, witnesses included.
    pub fn wtxid(&self) -> sha256d::Hash {
        sha256d::Hash::hash(self.whole)
    }

    /// The first item of the first input's witness: in a coinbase, the reserved value of BIP141.
    pub fn first_witness(&self) -> Option<&'a [u8]> {
        if !self.has_witness {
            return None;
        }
        let mut rest = Reader(&self.whole[6 + self.body.len()..]);
        if rest.count().ok()? == 0 { None } else { rest.script().ok() }
    }

    /// The script of the first input: in a coinbase, the height comes first (BIP34).
    pub fn first_script(&self) -> Option<&'a [u8]> {
        let mut reader = Reader(self.body);
        reader.count().ok()?;
        reader.take(36).ok()?;
        reader.script().ok()
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::{
        Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness, absolute::LockTime, consensus,
        transaction::Version,
    };
    use proptest::prelude::*;

    use super::*;

    fn any_input() -> impl Strategy<Value = TxIn> {
        (any::<[u8; 32]>(), any::<u32>(), bytes(300), any::<u32>(), prop::collection::vec(bytes(80), 0..4)).prop_map(
            |(txid, vout, script, sequence, witness)| TxIn {
                previous_output: OutPoint::new(Txid::from_byte_array(txid), vout),
                script_sig: ScriptBuf::from_bytes(script),
                sequence: Sequence(sequence),
                witness: Witness::from_slice(&witness),
            },
        )
    }

    fn bytes(longest: usize) -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 0..longest)
    }

    fn any_tx() -> impl Strategy<Value = Transaction> {
        let output = (any::<u64>(), bytes(300)).prop_map(|(sats, script)| TxOut {
            value: Amount::from_sat(sats),
            script_pubkey: ScriptBuf::from_bytes(script),
        });
        let (inputs, outputs) = (prop::collection::vec(any_input(), 1..5), prop::collection::vec(output, 1..300));
        (any::<i32>(), inputs, outputs, any::<u32>()).prop_map(|(version, input, output, lock)| Transaction {
            version: Version(version),
            lock_time: LockTime::from_consensus(lock),
            input,
            output,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_walked_is_what_rust_bitcoin_reads(tx in any_tx()) {
            let bytes = consensus::serialize(&tx);
            let mut reader = Reader::new(&bytes);
            let mut outputs = Vec::new();
            let walked = reader.tx(|output| outputs.push((output.vout, output.sats, output.script.to_vec()))).unwrap();
            prop_assert!(reader.is_empty());
            let expected: Vec<_> = (0u32..)
                .zip(&tx.output)
                .map(|(vout, output)| (vout, output.value.to_sat(), output.script_pubkey.to_bytes()))
                .collect();
            prop_assert_eq!(outputs, expected);
            prop_assert_eq!(walked.txid(), tx.compute_txid().to_raw_hash());
            prop_assert_eq!(walked.wtxid(), tx.compute_wtxid().to_raw_hash());
            prop_assert_eq!(walked.is_coinbase, tx.is_coinbase());
            prop_assert_eq!(walked.is_replaceable, tx.is_explicitly_rbf() && !tx.is_coinbase());
            prop_assert_eq!(walked.first_script(), Some(tx.input[0].script_sig.as_bytes()));
            prop_assert_eq!(walked.first_witness(), tx.input[0].witness.nth(0));
        }

        #[test]
        fn any_bytes_are_walked_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = Reader::new(&bytes).tx(|_| {});
        }

        #[test]
        fn what_is_cut_off_is_broken(tx in any_tx(), at: prop::sample::Index) {
            let bytes = consensus::serialize(&tx);
            let cut = &bytes[..at.index(bytes.len())];
            let walked = Reader::new(cut).tx(|_| ());
            prop_assert!(walked.is_err());
        }
    }
}
