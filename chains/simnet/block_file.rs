//! Stores a model chain on disk, in a file of lines. The first line is a snapshot of the state; every other line is a
//! block, a rewind (the removal of the newest blocks) or a transaction that waits in the mempool.
//!
//! A block is written before a reader can see it. When the file is opened, each block is applied again and must get its
//! stored hash, so a changed file is detected. An incomplete last line, left by a crash, is dropped, because no reader
//! saw its block.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    iter,
    path::{Path, PathBuf},
};

use chain::{AddressKey, AssetId, BlockHash, ChainId, Family, Header, Height, OutPoint, TxId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    chain_state::ReversibleMap,
    model_chain::{KEPT_BLOCKS, ModelBlock, ModelChain},
    spec::ChainSpec,
    transaction::{SignedTx, parse_amount, parse_txid},
};

/// The number of lines above which the file is replaced by a shorter file.
const LINES_MAX: usize = 4 * KEPT_BLOCKS;

/// Version of the file format. Files of other versions cannot be opened.
const VERSION: u32 = 1;

/// The reason for which a stored chain cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file cannot be read or written.
    #[error("{path}: {source}", path = path.display())]
    Io { path: PathBuf, source: io::Error },
    /// A line cannot be parsed or applied, or a block does not have its stored hash. Lines are counted from 1.
    #[error("{path}: line {line} is damaged: {reason}", path = path.display())]
    Damaged { path: PathBuf, line: usize, reason: String },
    /// The file contains a chain with another name or of another family than the requested one.
    #[error("{path} has the {found:?} chain `{chain}`, which is not the requested one", path = path.display())]
    OtherChain { path: PathBuf, chain: ChainId, found: Family },
}

/// One line of the file that stores a model chain.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileLine {
    /// The state after the oldest stored block. It is always the first line of the file, and only the first.
    Snapshot(Box<Snapshot>),
    /// The next block of the chain. Its parent is the newest block after the lines above are applied.
    Block(BlockRecord),
    /// All blocks above this height were replaced. The next line is the first of the new blocks.
    Rewind(Height),
    /// A transaction that came into the mempool, in its encoded form. Later blocks may include it.
    Pending(Box<RawValue>),
}

/// The oldest stored block, with the state after it. Hashes, accounts and ids are hexadecimal; amounts are decimal.
#[derive(Serialize, Deserialize)]
pub struct Snapshot {
    version: u32,
    chain: ChainId,
    family: Family,
    seed: u64,
    genesis: String,
    branch: u64,
    height: Height,
    hash: String,
    parent: String,
    time: i64,
    balances: Vec<(AssetId, String, String)>,
    nonces: Vec<(String, u64)>,
    coins: Vec<(String, String, u32, String)>,
    used: Vec<(String, i64)>,
}

/// A stored block with its encoded transactions.
#[derive(Serialize, Deserialize)]
pub struct BlockRecord {
    hash: String,
    time: i64,
    branch: u64,
    txs: Vec<Box<RawValue>>,
}

/// The open file that stores one model chain.
#[derive(Debug)]
pub struct BlockFile {
    path: PathBuf,
    file: File,
    lines: usize,
}

/// Opens the chain that the file in `folder` contains, or starts a new chain with `seed` when there is no file.
pub fn open_or_create_chain(
    folder: &Path,
    spec: ChainSpec,
    seed: u64,
    genesis_time: i64,
) -> Result<ModelChain, OpenError> {
    let path = folder.join(format!("{}.journal", spec.chain));
    let failed = |source| OpenError::Io { path: path.clone(), source };
    fs::create_dir_all(folder).map_err(failed)?;
    let mut model = match fs::read(&path) {
        Ok(bytes) => rebuild_chain_from_file(&path, spec, &bytes)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => ModelChain::with_genesis_block(spec, seed, genesis_time),
        Err(e) => return Err(failed(e)),
    };
    model.drop_old_blocks_and_expired_txids();
    let file = BlockFile::create_or_replace(path.clone(), &model).map_err(failed)?;
    model.file = Some(file);
    Ok(model)
}

impl BlockFile {
    fn create_or_replace(path: PathBuf, model: &ModelChain) -> io::Result<BlockFile> {
        let (file, lines) = replace_file_atomically(&path, model)?;
        Ok(BlockFile { path, file, lines })
    }

    /// Appends lines to the file and waits until they are on disk.
    pub fn append_lines_and_sync(&mut self, lines: impl Iterator<Item = FileLine>) -> io::Result<()> {
        let mut text = Vec::new();
        for line in lines {
            serde_json::to_writer(&mut text, &line)?;
            text.push(b'\n');
            self.lines += 1;
        }
        self.file.write_all(&text)?;
        self.file.sync_data()
    }

    /// Returns true when the file has more than [`LINES_MAX`] lines, so that it is to be replaced by a shorter file.
    pub fn has_too_many_lines(&self) -> bool {
        self.lines > LINES_MAX
    }

    /// Replaces the file with one that contains only a snapshot of the oldest stored block and the blocks after it.
    pub fn replace_by_shorter_file(&mut self, model: &ModelChain) -> io::Result<()> {
        (self.file, self.lines) = replace_file_atomically(&self.path, model)?;
        Ok(())
    }
}

impl ModelChain {
    /// Appends the blocks above the height `from` to the chain's file, if it has one, and drops the oldest blocks from
    /// memory. `rewound` is the height of the fork if blocks were replaced, and `None` otherwise. After a rewind, or
    /// when the file has too many lines, the whole file is replaced. A failure is kept in `storage_error`.
    pub fn store_new_and_drop_old_blocks(&mut self, rewound: Option<Height>, from: Height) {
        if let Some(mut file) = self.file.take() {
            let known = usize::try_from(from - self.oldest_height() + 1).unwrap_or(usize::MAX);
            let above = self.blocks.iter().skip(known);
            let lines = rewound.map(FileLine::Rewind).into_iter().chain(above.map(FileLine::from_block));
            let stored = file.append_lines_and_sync(lines);
            self.drop_old_blocks_and_expired_txids();
            // After a rewind, the file is replaced. Otherwise, transactions that the reorganisation dropped would
            // return from the old lines after a restart.
            let is_replaced = rewound.is_some() || file.has_too_many_lines();
            let stored = stored.and_then(|()| if is_replaced { file.replace_by_shorter_file(self) } else { Ok(()) });
            self.keep_storage_error(stored);
            self.file = Some(file);
        } else {
            self.drop_old_blocks_and_expired_txids();
        }
    }

    /// Appends a transaction of the mempool to the chain's file, so that it still waits for a block after a restart. A
    /// failure is kept in `storage_error`.
    pub fn store_pending_transaction(&mut self, raw: &str) {
        if let Some(file) = &mut self.file {
            let stored = file.append_lines_and_sync(iter::once(FileLine::from_pending(raw)));
            self.keep_storage_error(stored);
        }
    }

    /// Replaces the chain's file by one with the present blocks and the present mempool. Does nothing for a chain in
    /// memory. A failure is kept in `storage_error`.
    pub fn rewrite_chain_file(&mut self) {
        if let Some(mut file) = self.file.take() {
            let stored = file.replace_by_shorter_file(self);
            self.storage_error = None;
            self.keep_storage_error(stored);
            self.file = Some(file);
        }
    }

    /// Keeps the error of a failed write. A later write does not clear the error, because the lines of the failed one are
    /// missing in the file; only a new file does, see [`Self::rewrite_chain_file`].
    fn keep_storage_error(&mut self, stored: io::Result<()>) {
        if let Err(error) = stored {
            self.storage_error = Some(format!("the chain's file cannot be written: {error}"));
        }
    }

    /// Returns the lines of a new file: a snapshot of the oldest kept block, the blocks after it, and the mempool.
    fn list_file_lines(&self) -> impl Iterator<Item = FileLine> + '_ {
        let blocks = self.blocks.iter().skip(1).map(FileLine::from_block);
        let pending = self.mempool.list_transactions().map(|tx| FileLine::from_pending(tx.raw()));
        iter::once(FileLine::snapshot_from_model(self)).chain(blocks).chain(pending)
    }
}

/// Replaces the whole file atomically: after a crash, either the old or the new file exists completely. Returns the
/// open file and its number of lines.
fn replace_file_atomically(path: &Path, model: &ModelChain) -> io::Result<(File, usize)> {
    let new_path = path.with_extension("journal.new");
    let mut out = BufWriter::new(File::create(&new_path)?);
    let mut lines = 0;
    for line in model.list_file_lines() {
        serde_json::to_writer(&mut out, &line)?;
        out.write_all(b"\n")?;
        lines += 1;
    }
    out.into_inner()?.sync_all()?;
    fs::rename(&new_path, path)?;
    let folder = path.parent().expect("the file is in a folder");
    File::open(folder)?.sync_all()?;
    Ok((OpenOptions::new().append(true).open(path)?, lines))
}

/// Returns the chain that the lines of a file describe, with its mempool. Drops an incomplete last line.
fn rebuild_chain_from_file(path: &Path, spec: ChainSpec, bytes: &[u8]) -> Result<ModelChain, OpenError> {
    let damaged = |line: usize, reason: String| OpenError::Damaged { path: path.to_owned(), line: line + 1, reason };
    let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
    let mut lines = bytes[..whole].split_inclusive(|b| *b == b'\n').enumerate().peekable();
    let parse = |line: &[u8]| serde_json::from_slice::<FileLine>(line).map_err(|e| e.to_string());
    let snapshot = match lines.next().map(|(_, line)| parse(line)) {
        Some(Ok(FileLine::Snapshot(snapshot))) => snapshot,
        Some(Ok(FileLine::Block(_) | FileLine::Rewind(_) | FileLine::Pending(_))) | None => {
            return Err(damaged(0, "no snapshot".into()));
        }
        Some(Err(reason)) => return Err(damaged(0, reason)),
    };
    if snapshot.chain != spec.chain || snapshot.family != spec.family {
        let (chain, found) = (snapshot.chain, snapshot.family);
        return Err(OpenError::OtherChain { path: path.to_owned(), chain, found });
    }
    let mut model = snapshot.restore_chain(spec).map_err(|reason| damaged(0, reason))?;
    let mut pending = Vec::new();
    while let Some((number, text)) = lines.next() {
        match parse(text) {
            Ok(line) => line
                .apply_to_chain_or_collect_pending(&mut model, &mut pending)
                .map_err(|reason| damaged(number, reason))?,
            Err(_) if lines.peek().is_none() => break,
            Err(reason) => return Err(damaged(number, reason)),
        }
    }
    model.readd_unmined_to_mempool(pending);
    Ok(model)
}

impl FileLine {
    /// Returns the line for a transaction of the mempool, given in its encoded form.
    pub fn from_pending(raw: &str) -> FileLine {
        FileLine::Pending(RawValue::from_string(raw.to_owned()).expect("an encoded transaction is JSON"))
    }

    /// Returns the line for a block.
    pub fn from_block(block: &ModelBlock) -> FileLine {
        let raw = |tx: &SignedTx| RawValue::from_string(tx.raw().to_owned()).expect("an encoded transaction is JSON");
        FileLine::Block(BlockRecord {
            hash: block.header.hash.to_string(),
            time: block.header.time,
            branch: block.branch,
            txs: block.txs.iter().map(|tx| raw(tx)).collect(),
        })
    }

    /// Returns the line for the oldest stored block and the state after it.
    pub fn snapshot_from_model(model: &ModelChain) -> FileLine {
        let base = model.blocks.front().expect("a chain has at least one block");
        let state = model.compute_state_at_oldest_block();
        let hex = |key: &AddressKey| const_hex::encode(key.0);
        let balance = |((asset, account), amount): (&(AssetId, AddressKey), &chain::Amount)| {
            (asset.clone(), hex(account), amount.to_string())
        };
        let coin = |((owner, coin), amount): (&(AddressKey, OutPoint), &chain::Amount)| {
            (hex(owner), coin.txid.to_string(), coin.vout, amount.to_string())
        };
        FileLine::Snapshot(Box::new(Snapshot {
            version: VERSION,
            chain: model.spec.chain.clone(),
            family: model.spec.family,
            seed: model.seed,
            genesis: model.genesis.to_string(),
            branch: base.branch,
            height: base.header.height,
            hash: base.header.hash.to_string(),
            parent: base.header.parent.to_string(),
            time: base.header.time,
            balances: state.balances.rows.iter().map(balance).collect(),
            nonces: state.nonces.rows.iter().map(|(account, next)| (hex(account), *next)).collect(),
            coins: state.coins.rows.iter().map(coin).collect(),
            used: state.used.rows.iter().map(|(txid, until)| (txid.to_string(), *until)).collect(),
        }))
    }

    /// Applies one line: appends its block to the chain, rewinds the chain, or adds its transaction to `pending`, which
    /// the caller adds to the mempool after the last line. Fails for a snapshot, which may only be the first line.
    fn apply_to_chain_or_collect_pending(
        self,
        model: &mut ModelChain,
        pending: &mut Vec<SignedTx>,
    ) -> Result<(), String> {
        match self {
            FileLine::Pending(raw) => {
                let tx =
                    SignedTx::decode_canonical_unverified(model.spec.family, &model.spec.chain, raw.get().as_bytes());
                pending.push(tx.map_err(|e| e.to_string())?);
                Ok(())
            }
            FileLine::Snapshot(_) => Err("a second snapshot".into()),
            FileLine::Rewind(to) if to < model.oldest_height() || to > model.head().height => {
                Err("a rewind to a block that is not kept".into())
            }
            FileLine::Rewind(to) => {
                model.rewind_to(to);
                Ok(())
            }
            FileLine::Block(block) => {
                let spec = model.spec.clone();
                let decode = |raw: Box<RawValue>| {
                    SignedTx::decode_canonical_unverified(spec.family, &spec.chain, raw.get().as_bytes())
                };
                let txs = block
                    .txs
                    .into_iter()
                    .map(decode)
                    .collect::<Result<Vec<SignedTx>, _>>()
                    .map_err(|e| e.to_string())?;
                let same = model
                    .replay_block_and_compare_hash(parse_block_hash(&block.hash)?, block.time, block.branch, txs)
                    .map_err(|rejection| rejection.to_string())?;
                if same { Ok(()) } else { Err("the block's hash does not match its content".into()) }
            }
        }
    }
}

impl Snapshot {
    /// Returns a chain with the block and the state of the snapshot. Fails if the version is not supported or a value
    /// cannot be parsed.
    fn restore_chain(self, spec: ChainSpec) -> Result<ModelChain, String> {
        if self.version != VERSION {
            return Err(format!("version {} is not supported", self.version));
        }
        let base = Header {
            height: self.height,
            hash: parse_block_hash(&self.hash)?,
            parent: parse_block_hash(&self.parent)?,
            time: self.time,
        };
        let mut model = ModelChain::from_base_block(spec, self.seed, parse_block_hash(&self.genesis)?, base);
        model.branch = self.branch;
        model.blocks.front_mut().expect("a chain has at least one block").branch = self.branch;
        let mut balances = BTreeMap::new();
        for (asset, account, amount) in self.balances {
            balances.insert((asset, parse_account(&account)?), parse_amount(&amount)?);
        }
        let mut nonces = BTreeMap::new();
        for (account, next) in self.nonces {
            nonces.insert(parse_account(&account)?, next);
        }
        let mut coins = BTreeMap::new();
        for (owner, txid, vout, amount) in self.coins {
            let txid = parse_txid(&txid).ok_or("a coin has no identifier")?;
            coins.insert((parse_account(&owner)?, OutPoint { txid, vout }), parse_amount(&amount)?);
        }
        let mut used: BTreeMap<TxId, i64> = BTreeMap::new();
        for (txid, until) in self.used {
            used.insert(parse_txid(&txid).ok_or("a transaction has no identifier")?, until);
        }
        model.state.balances = ReversibleMap::new(balances);
        model.state.nonces = ReversibleMap::new(nonces);
        model.state.coins = ReversibleMap::new(coins);
        model.state.used = ReversibleMap::new(used);
        Ok(model)
    }
}

fn parse_block_hash(text: &str) -> Result<BlockHash, String> {
    const_hex::decode_to_array(text).map(BlockHash).map_err(|e| e.to_string())
}

fn parse_account(text: &str) -> Result<AddressKey, String> {
    const_hex::decode_to_array(text).map(AddressKey).map_err(|e| e.to_string())
}
