//! The interface between the daemon and the drivers of the blockchains.
//!
//! This crate contains the value types that every other crate may use, the traits that a driver implements, and the
//! follower, which decides whether to read blocks, to rewind or to wait. It does no I/O, uses no database and reads no
//! clock.

#![deny(missing_docs)]

pub mod amount;
pub mod asset;
pub mod address;
pub mod derive;
pub mod payment_uri;
pub mod block;
pub mod transfer;
pub mod watch;
pub mod source;
pub mod corroboration;
pub mod sender;
pub mod follower;

pub use address::{Address, AddressKey};
pub use amount::Amount;
pub use asset::{Asset, AssetId, AssetKind, ChainId, Family};
pub use block::{Block, BlockHash, BlockRef, Header, Height, Tip};
pub use derive::{AccountKeyBytes, Deriver};
pub use sender::{BroadcastOutcome, Sender};
pub use source::{Identity, InternalTransfers, Source, SourceError};
pub use transfer::{OutPoint, Spend, Transfer, TransferIndex, TxId, TxPart, UnconfirmedTransfer};
pub use watch::WatchSet;
