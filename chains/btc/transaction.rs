//! Parses serialised transactions (BIP144) without copying their inputs, outputs and witnesses.

use bitcoin::hashes::{Hash, HashEngine, sha256d};

/// The output index of a coinbase's only input. This input spends no output, so its transaction id is zero.
const COINBASE_VOUT: u32 = u32::MAX;
/// An input with a sequence number from this number on does not signal that the transaction may be replaced (BIP125).
const NOT_REPLACEABLE_FROM: u32 = 0xffff_fffe;

/// The error for bytes that are not a complete transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the bytes of a transaction are incomplete or malformed")]
pub struct MalformedTransaction;

/// One output of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Output<'a> {
    /// Index of the output in its transaction.
    pub vout: u32,
    /// Amount in satoshi.
    pub sats: u64,
    /// The output script (`scriptPubKey`), which names the recipient.
    pub script: &'a [u8],
}

/// The output that an input spends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Input {
    /// Transaction id in hash order, which is the reverse of the displayed order.
    pub txid: [u8; 32],
    /// Index of the output in that transaction.
    pub vout: u32,
}

/// A parsed transaction that refers to the bytes of its block instead of copying them.
#[derive(Debug, Clone, Copy)]
pub struct ParsedTransaction<'a> {
    /// All bytes of the transaction, including the witnesses.
    whole: &'a [u8],
    /// The bytes from the number of inputs to the end of the outputs. The txid is the hash of the version, these bytes
    /// and the lock time.
    body: &'a [u8],
    /// True if the transaction is serialised with witnesses (BIP144).
    pub has_witness: bool,
    /// True if the only input is that of a coinbase: a zero txid and the index 2^32 − 1.
    pub is_coinbase: bool,
    /// True if an input signals that the transaction may be replaced (BIP125).
    pub is_replaceable: bool,
}

/// A reader of serialised data. Its field contains the bytes that are not read yet.
#[derive(Debug, Clone, Copy)]
pub struct ByteReader<'a>(&'a [u8]);

impl<'a> ByteReader<'a> {
    /// Returns a reader that starts at the beginning of `bytes`.
    pub fn new(bytes: &'a [u8]) -> ByteReader<'a> {
        ByteReader(bytes)
    }

    /// Returns true if no bytes are left to read.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the next `count` bytes, or an error if fewer are left.
    pub fn take_bytes(&mut self, count: usize) -> Result<&'a [u8], MalformedTransaction> {
        let (front, rest) = self.0.split_at_checked(count).ok_or(MalformedTransaction)?;
        self.0 = rest;
        Ok(front)
    }

    /// Returns the next `N` bytes as an array.
    fn take_array<const N: usize>(&mut self) -> Result<[u8; N], MalformedTransaction> {
        let (front, rest) = self.0.split_first_chunk::<N>().ok_or(MalformedTransaction)?;
        self.0 = rest;
        Ok(*front)
    }

    /// Reads a number of items in Bitcoin's compact encoding of 1, 3, 5 or 9 bytes. Fails if the number exceeds the
    /// number of bytes that are not read yet, because each counted item has at least one byte.
    pub fn read_bounded_compact_size(&mut self) -> Result<usize, MalformedTransaction> {
        let [first] = self.take_array()?;
        let count = match first {
            0xfd => u64::from(u16::from_le_bytes(self.take_array()?)),
            0xfe => u64::from(u32::from_le_bytes(self.take_array()?)),
            0xff => u64::from_le_bytes(self.take_array()?),
            small => u64::from(small),
        };
        usize::try_from(count).ok().filter(|count| *count <= self.0.len()).ok_or(MalformedTransaction)
    }

    /// Reads a script: its length as a compact size, then its bytes.
    fn read_script(&mut self) -> Result<&'a [u8], MalformedTransaction> {
        let length = self.read_bounded_compact_size()?;
        self.take_bytes(length)
    }

    /// Reads one transaction and calls `output` for each of its outputs.
    pub fn read_transaction(
        &mut self,
        output: impl FnMut(Output<'a>),
    ) -> Result<ParsedTransaction<'a>, MalformedTransaction> {
        self.read_transaction_with_callbacks(|_| {}, output)
    }

    /// Reads one transaction and calls `input` and `output` for each of its inputs and outputs.
    pub fn read_transaction_with_callbacks(
        &mut self,
        mut input: impl FnMut(Input),
        mut output: impl FnMut(Output<'a>),
    ) -> Result<ParsedTransaction<'a>, MalformedTransaction> {
        let start = self.0;
        self.take_bytes(4)?;
        // A transaction has at least one input. So a zero where the number of inputs is expected marks a transaction
        // with witnesses.
        let has_witness = self.0.first() == Some(&0);
        if has_witness && self.take_bytes(2)?[1] != 1 {
            return Err(MalformedTransaction);
        }
        let body = self.0;
        let inputs = self.read_bounded_compact_size()?;
        let (mut is_coinbase, mut is_replaceable) = (false, false);
        for _ in 0..inputs {
            let previous: [u8; 32] = self.take_array()?;
            let vout = u32::from_le_bytes(self.take_array()?);
            is_coinbase |= inputs == 1 && vout == COINBASE_VOUT && previous == [0; 32];
            input(Input { txid: previous, vout });
            self.read_script()?;
            is_replaceable |= u32::from_le_bytes(self.take_array()?) < NOT_REPLACEABLE_FROM;
        }
        let outputs = self.read_bounded_compact_size()?;
        for vout in 0..outputs {
            let sats = u64::from_le_bytes(self.take_array()?);
            let script = self.read_script()?;
            output(Output { vout: u32::try_from(vout).map_err(|_| MalformedTransaction)?, sats, script });
        }
        let body = &body[..body.len() - self.0.len()];
        if has_witness {
            for _ in 0..inputs {
                for _ in 0..self.read_bounded_compact_size()? {
                    self.read_script()?;
                }
            }
        }
        self.take_bytes(4)?;
        if inputs == 0 || outputs == 0 {
            return Err(MalformedTransaction);
        }
        let whole = &start[..start.len() - self.0.len()];
        Ok(ParsedTransaction { whole, body, has_witness, is_coinbase, is_replaceable: is_replaceable && !is_coinbase })
    }
}

impl<'a> ParsedTransaction<'a> {
    /// Returns the transaction id in hash order, which is the reverse of the displayed order.
    pub fn compute_txid(&self) -> sha256d::Hash {
        if !self.has_witness {
            return self.compute_wtxid();
        }
        let mut engine = sha256d::Hash::engine();
        engine.input(&self.whole[..4]);
        engine.input(self.body);
        engine.input(&self.whole[self.whole.len() - 4..]);
        sha256d::Hash::from_engine(engine)
    }

    /// Returns the hash of all bytes of the transaction, including its witnesses.
    pub fn compute_wtxid(&self) -> sha256d::Hash {
        sha256d::Hash::hash(self.whole)
    }

    /// Returns the first item of the first input's witness: in a coinbase, the reserved value of BIP141.
    pub fn first_witness_item(&self) -> Option<&'a [u8]> {
        if !self.has_witness {
            return None;
        }
        let mut rest = ByteReader(&self.whole[6 + self.body.len()..]);
        if rest.read_bounded_compact_size().ok()? == 0 { None } else { rest.read_script().ok() }
    }

    /// Returns the script of the first input; in a coinbase it begins with the height (BIP34).
    pub fn first_input_script(&self) -> Option<&'a [u8]> {
        let mut reader = ByteReader(self.body);
        reader.read_bounded_compact_size().ok()?;
        reader.take_bytes(36).ok()?;
        reader.read_script().ok()
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
        (any::<[u8; 32]>(), any::<u32>(), any_bytes(300), any::<u32>(), prop::collection::vec(any_bytes(80), 0..4))
            .prop_map(|(txid, vout, script, sequence, witness)| TxIn {
                previous_output: OutPoint::new(Txid::from_byte_array(txid), vout),
                script_sig: ScriptBuf::from_bytes(script),
                sequence: Sequence(sequence),
                witness: Witness::from_slice(&witness),
            })
    }

    fn any_bytes(length_max: usize) -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 0..length_max)
    }

    fn any_tx() -> impl Strategy<Value = Transaction> {
        let output = (any::<u64>(), any_bytes(300)).prop_map(|(sats, script)| TxOut {
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
        fn transactions_are_parsed_as_rust_bitcoin_parses_them(tx in any_tx()) {
            let bytes = consensus::serialize(&tx);
            let mut reader = ByteReader::new(&bytes);
            let mut outputs = Vec::new();
            let parsed = reader.read_transaction(|output| outputs.push((output.vout, output.sats, output.script.to_vec()))).unwrap();
            prop_assert!(reader.is_empty());
            let expected: Vec<_> = (0u32..)
                .zip(&tx.output)
                .map(|(vout, output)| (vout, output.value.to_sat(), output.script_pubkey.to_bytes()))
                .collect();
            prop_assert_eq!(outputs, expected);
            prop_assert_eq!(parsed.compute_txid(), tx.compute_txid().to_raw_hash());
            prop_assert_eq!(parsed.compute_wtxid(), tx.compute_wtxid().to_raw_hash());
            prop_assert_eq!(parsed.is_coinbase, tx.is_coinbase());
            prop_assert_eq!(parsed.is_replaceable, tx.is_explicitly_rbf() && !tx.is_coinbase());
            prop_assert_eq!(parsed.first_input_script(), Some(tx.input[0].script_sig.as_bytes()));
            prop_assert_eq!(parsed.first_witness_item(), tx.input[0].witness.nth(0));
        }

        #[test]
        fn any_bytes_are_parsed_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = ByteReader::new(&bytes).read_transaction(|_| {});
        }

        #[test]
        fn a_truncated_transaction_is_malformed(tx in any_tx(), at: prop::sample::Index) {
            let bytes = consensus::serialize(&tx);
            let cut = &bytes[..at.index(bytes.len())];
            let parsed = ByteReader::new(cut).read_transaction(|_| ());
            prop_assert!(parsed.is_err());
        }
    }
}
