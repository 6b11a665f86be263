//! Stores a chain on disk, in a file of lines: a snapshot first, then one line for each new block and one for each
//! rewind.
//!
//! A block is written before any reader can see it. Replaying a block must give the stored hash, so a changed file is
//! detected. An incomplete last line, left by a crash, is dropped, because no reader saw that block.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use chain::{AddressKey, AssetId, BlockHash, ChainId, Family, Header, Height, TxId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    ledger::Table,
    model::{KEPT_BLOCKS, Model, Sealed},
    spec::ChainSpec,
    tx::{OutPoint, Tx, read_amount, read_txid},
};

/// Number of lines from which the file is rewritten.
const LONG: usize = 4 * KEPT_BLOCKS;

/// Version of the file format.
const VERSION: u32 = 1;

/// The reason for which a chain cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file cannot be read or written.
    #[error("{path}: {source}", path = path.display())]
    Io { path: PathBuf, source: io::Error },
    /// A line cannot be parsed or applied, or a block does not have its stored hash. Lines are counted from 1.
    #[error("{path}: line {line} is damaged: {reason}", path = path.display())]
    Damaged { path: PathBuf, line: usize, reason: String },
    /// The file contains a chain with another name or of another family.
    #[error("{path} keeps the {found:?} chain `{chain}`, not what is asked for", path = path.display())]
    OtherChain { path: PathBuf, chain: ChainId, found: Family },
}

/// One line of the file, as JSON.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Line {
    /// The state after the oldest kept block; always the first line and only there.
    Snapshot(Box<Snapshot>),
    /// A block on top of the one before it.
    Block(BlockLine),
    /// Every block above this height was replaced; the next line is the first block of the new branch.
    Rewind(Height),
}

/// The oldest kept block and the ledger after it. Hashes, accounts and ids are hexadecimal, amounts are decimal.
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

/// A block with its transactions in order, as they were broadcast.
#[derive(Serialize, Deserialize)]
pub struct BlockLine {
    hash: String,
    time: i64,
    branch: u64,
    txs: Vec<Box<RawValue>>,
}

/// The open file of one chain.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    lines: usize,
}

/// Opens the chain that the file in `folder` contains, or creates a new chain with `seed` when there is no file.
///
/// # Errors
/// Fails when the file cannot be read or written, is damaged, or contains another chain.
pub fn open(folder: &Path, spec: ChainSpec, seed: u64, genesis_time: i64) -> Result<Model, OpenError> {
    let path = folder.join(format!("{}.journal", spec.chain));
    let failed = |source| OpenError::Io { path: path.clone(), source };
    fs::create_dir_all(folder).map_err(failed)?;
    let mut model = match fs::read(&path) {
        Ok(bytes) => read(&path, spec, &bytes)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => Model::new(spec, seed, genesis_time),
        Err(e) => return Err(failed(e)),
    };
    model.forget();
    let journal = Journal::create(path.clone(), &model).map_err(failed)?;
    model.store_in(journal);
    Ok(model)
}

impl Journal {
    fn create(path: PathBuf, model: &Model) -> io::Result<Journal> {
        let (file, lines) = write_anew(&path, model)?;
        Ok(Journal { path, file, lines })
    }

    /// Appends lines and waits until they are on disk.
    pub fn append(&mut self, lines: impl Iterator<Item = Line>) -> io::Result<()> {
        let mut text = Vec::new();
        for line in lines {
            serde_json::to_writer(&mut text, &line)?;
            text.push(b'\n');
            self.lines += 1;
        }
        self.file.write_all(&text)?;
        self.file.sync_data()
    }

    /// Returns true when the file has so many lines that it should be rewritten.
    pub fn is_long(&self) -> bool {
        self.lines > LONG
    }

    /// Replaces the file by a snapshot of the oldest kept block and the blocks after it.
    pub fn rewrite(&mut self, model: &Model) -> io::Result<()> {
        (self.file, self.lines) = write_anew(&self.path, model)?;
        Ok(())
    }
}

/// Replaces the file atomically: after a crash, either the old or the new file exists completely. Returns the open file
/// and its number of lines.
fn write_anew(path: &Path, model: &Model) -> io::Result<(File, usize)> {
    let draft = path.with_extension("journal.new");
    let mut out = BufWriter::new(File::create(&draft)?);
    let mut lines = 0;
    for line in model.lines() {
        serde_json::to_writer(&mut out, &line)?;
        out.write_all(b"\n")?;
        lines += 1;
    }
    out.into_inner()?.sync_all()?;
    fs::rename(&draft, path)?;
    let folder = path.parent().expect("a journal stands in a folder");
    File::open(folder)?.sync_all()?;
    Ok((OpenOptions::new().append(true).open(path)?, lines))
}

fn read(path: &Path, spec: ChainSpec, bytes: &[u8]) -> Result<Model, OpenError> {
    let damaged = |line: usize, reason: String| OpenError::Damaged { path: path.to_owned(), line: line + 1, reason };
    let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
    let mut lines = bytes[..whole].split_inclusive(|b| *b == b'\n').enumerate().peekable();
    let parse = |line: &[u8]| serde_json::from_slice::<Line>(line).map_err(|e| e.to_string());
    let snapshot = match lines.next().map(|(_, line)| parse(line)) {
        Some(Ok(Line::Snapshot(snapshot))) => snapshot,
        Some(Ok(Line::Block(_) | Line::Rewind(_))) | None => return Err(damaged(0, "no snapshot".into())),
        Some(Err(reason)) => return Err(damaged(0, reason)),
    };
    if snapshot.chain != spec.chain || snapshot.family != spec.family {
        let (chain, found) = (snapshot.chain, snapshot.family);
        return Err(OpenError::OtherChain { path: path.to_owned(), chain, found });
    }
    let mut model = snapshot.restore(spec).map_err(|reason| damaged(0, reason))?;
    while let Some((number, text)) = lines.next() {
        match parse(text) {
            Ok(line) => line.replay(&mut model).map_err(|reason| damaged(number, reason))?,
            Err(_) if lines.peek().is_none() => break,
            Err(reason) => return Err(damaged(number, reason)),
        }
    }
    Ok(model)
}

impl Line {
    /// Returns the line for the removal of every block above `to`.
    pub fn rewind(to: Height) -> Line {
        Line::Rewind(to)
    }

    /// Returns the line for a block.
    pub fn block(block: &Sealed) -> Line {
        let raw = |tx: &Tx| RawValue::from_string(tx.raw().to_owned()).expect("a transaction's bytes are JSON");
        Line::Block(BlockLine {
            hash: block.header.hash.to_string(),
            time: block.header.time,
            branch: block.branch,
            txs: block.txs.iter().map(|tx| raw(tx)).collect(),
        })
    }

    /// Returns the line for the oldest kept block and the ledger after it.
    pub fn snapshot(model: &Model) -> Line {
        let base = model.blocks.front().expect("never empty");
        let ledger = model.ledger_at_base();
        let hex = |key: &AddressKey| const_hex::encode(key.0);
        let balance = |((asset, account), amount): (&(AssetId, AddressKey), &chain::Amount)| {
            (asset.clone(), hex(account), amount.to_string())
        };
        let coin = |((owner, coin), amount): (&(AddressKey, OutPoint), &chain::Amount)| {
            (hex(owner), coin.txid.to_string(), coin.index, amount.to_string())
        };
        Line::Snapshot(Box::new(Snapshot {
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
            balances: ledger.balances.rows.iter().map(balance).collect(),
            nonces: ledger.nonces.rows.iter().map(|(account, next)| (hex(account), *next)).collect(),
            coins: ledger.coins.rows.iter().map(coin).collect(),
            used: ledger.used.rows.iter().map(|(txid, until)| (txid.to_string(), *until)).collect(),
        }))
    }

    fn replay(self, model: &mut Model) -> Result<(), String> {
        match self {
            Line::Snapshot(_) => Err("a second snapshot".into()),
            Line::Rewind(to) if to < model.base() || to > model.head().height => Err("a way back to nowhere".into()),
            Line::Rewind(to) => {
                model.rewind(to);
                Ok(())
            }
            Line::Block(block) => {
                let spec = model.spec.clone();
                let decode = |raw: Box<RawValue>| Tx::decode(spec.family, &spec.chain, raw.get().as_bytes());
                let txs =
                    block.txs.into_iter().map(decode).collect::<Result<Vec<Tx>, _>>().map_err(|e| e.to_string())?;
                let same = model
                    .replay(read_hash(&block.hash)?, block.time, block.branch, txs)
                    .map_err(|refusal| refusal.to_string())?;
                if same { Ok(()) } else { Err("the block's hash does not match its content".into()) }
            }
        }
    }
}

impl Snapshot {
    fn restore(self, spec: ChainSpec) -> Result<Model, String> {
        if self.version != VERSION {
            return Err(format!("version {} is not known", self.version));
        }
        let base = Header {
            height: self.height,
            hash: read_hash(&self.hash)?,
            parent: read_hash(&self.parent)?,
            time: self.time,
        };
        let mut model = Model::at(spec, self.seed, read_hash(&self.genesis)?, base);
        model.branch = self.branch;
        model.blocks.front_mut().expect("never empty").branch = self.branch;
        let mut balances = BTreeMap::new();
        for (asset, account, amount) in self.balances {
            balances.insert((asset, read_key(&account)?), read_amount(&amount)?);
        }
        let mut nonces = BTreeMap::new();
        for (account, next) in self.nonces {
            nonces.insert(read_key(&account)?, next);
        }
        let mut coins = BTreeMap::new();
        for (owner, txid, index, amount) in self.coins {
            let txid = read_txid(&txid).ok_or("a coin has no identifier")?;
            coins.insert((read_key(&owner)?, OutPoint { txid, index }), read_amount(&amount)?);
        }
        let mut used: BTreeMap<TxId, i64> = BTreeMap::new();
        for (txid, until) in self.used {
            used.insert(read_txid(&txid).ok_or("a transaction has no identifier")?, until);
        }
        model.ledger.balances = Table::new(balances);
        model.ledger.nonces = Table::new(nonces);
        model.ledger.coins = Table::new(coins);
        model.ledger.used = Table::new(used);
        Ok(model)
    }
}

fn read_hash(text: &str) -> Result<BlockHash, String> {
    const_hex::decode_to_array(text).map(BlockHash).map_err(|e| e.to_string())
}

fn read_key(text: &str) -> Result<AddressKey, String> {
    const_hex::decode_to_array(text).map(AddressKey).map_err(|e| e.to_string())
}
