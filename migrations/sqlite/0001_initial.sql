-- Columns have the types BIGINT, TEXT and BLOB. Columns whose names end in `_at` contain times in milliseconds since
-- 1970-01-01 UTC; `block_time` contains seconds. Flags are 0 or 1. Fiat amounts are minor units of their currency. Asset
-- amounts are base units, stored as 32 big-endian bytes, so that sorting the bytes sorts the numbers. The program checks
-- states and kinds, because SQLite cannot change a check constraint later.

-- Leases: each row is a task that only one instance of the daemon may do at a time. `epoch` grows with each change of
-- the owner, so that the statements of an earlier owner are refused.
create table leases (
    name text primary key,
    owner text not null,
    epoch bigint not null,
    expires_at bigint not null
);

-- Facts that must be the same at every start of the daemon: chain ids, genesis hashes, and the decimals of tokens.
create table immutable_facts (
    name text primary key,
    value text not null,
    recorded_at bigint not null
);

----------------------------------------------------------------------------------------------------- events and reviews

create table events (
    seq integer primary key autoincrement,
    merchant_id bigint not null,
    mode text not null check (mode in ('live', 'test')),
    kind text not null,
    subject text not null,
    payload text not null,
    occurred_at bigint not null
);
create index events_by_merchant on events (merchant_id, mode, seq);

-- Cases that no rule of the daemon decides, such as money without an invoice. The operator decides them.
create table reviews (
    id integer primary key autoincrement,
    kind text not null,
    subject text not null,
    detail text not null,
    -- The amount that the review is about, in base units; null when the review is not about an amount.
    amount blob check (amount is null or length(amount) = 32),
    opened_at bigint not null,
    closed_at bigint,
    -- The reason why the review was closed. decided: the operator closed it. resolved: its cause has ended. retracted: a
    -- reorg removed the money that it was about. Null while the review is open.
    closing_reason text,
    closing_note text,
    unique (kind, subject)
);
create index reviews_open on reviews (opened_at) where closed_at is null;

-- The actions of operators, such as the creation of a product. Rows are only added, never changed.
create table audit_log (
    seq integer primary key autoincrement,
    actor text not null,
    action text not null,
    subject text not null,
    detail text not null,
    recorded_at bigint not null
);

------------------------------------------------------------------------------------------------------------------ ledger

create table accounts (
    id integer primary key autoincrement,
    mode text not null check (mode in ('live', 'test')),
    code text not null,
    asset text not null,
    -- 1 when the account may not go below zero: its posted credits are never less than its posted and held debits. Every
    -- database transaction that posts to such an account updates its balance row.
    non_negative bigint not null check (non_negative in (0, 1)),
    unique (code, asset, mode)
);
create index accounts_rolled_up on accounts (id) where non_negative = 0;

-- The sums of the postings of each account. The row of an account that may not go below zero always includes all
-- postings. A worker updates the other rows later; these include the postings up to the hash chain number
-- `rolled_up_to`.
create table balances (
    account_id integer primary key references accounts (id),
    debits_pending blob not null check (length(debits_pending) = 32),
    debits_posted blob not null check (length(debits_posted) = 32),
    credits_pending blob not null check (length(credits_pending) = 32),
    credits_posted blob not null check (length(credits_posted) = 32),
    rolled_up_to bigint not null
);

-- The postings of journal entries. A posting moves one amount of one asset from a debited to a credited account, and never
-- changes. Its kind is `posted`, `pending` (creates a hold), `post` (posts a hold) or `void` (releases a hold). A hold is
-- posted or voided once.
create table postings (
    seq integer primary key autoincrement,
    -- The name of the journal entry. `line_no` is the number of the posting in the journal entry, from 0.
    entry text not null,
    line_no bigint not null,
    kind text not null,
    -- The hold that this posting posts or voids; null for the kinds `posted` and `pending`.
    hold_seq bigint references postings (seq),
    debit_account_id bigint not null references accounts (id),
    credit_account_id bigint not null references accounts (id),
    amount blob not null check (length(amount) = 32),
    reason text not null,
    created_at bigint not null,
    -- The number of the posting in the hash chain, from 1. On SQLite the transaction of the posting sets this number. On
    -- PostgreSQL a worker sets this number about a second later; until then it is null.
    hash_chain_no bigint unique,
    hash blob check (length(hash) = 32),
    check ((kind in ('post', 'void')) = (hold_seq is not null)),
    check (debit_account_id <> credit_account_id),
    unique (entry, line_no)
);
create unique index postings_resolve_once on postings (hold_seq) where hold_seq is not null;
-- These two indexes find the postings of an account above a hash chain number, so that the worker that updates balance
-- rows reads only new postings.
create index postings_by_debit_account on postings (debit_account_id, hash_chain_no);
create index postings_by_credit_account on postings (credit_account_id, hash_chain_no);
create index postings_without_hash on postings (seq) where hash_chain_no is null;

--------------------------------------------------------------------------------------------------------------- merchants

create table merchants (
    id integer primary key autoincrement,
    public_id text not null unique,
    slug text not null unique,
    name text not null,
    created_at bigint not null
);

create table users (
    id integer primary key autoincrement,
    public_id text not null unique,
    merchant_id bigint not null references merchants (id),
    mode text not null check (mode in ('live', 'test')),
    name text not null,
    state text not null,
    created_at bigint not null,
    unique (merchant_id, mode, name)
);

-- The e-mail addresses of users. Personal data is in a table of its own, so that it can be erased.
create table user_contacts (
    user_id integer primary key references users (id),
    email text not null
);

create table user_tokens (
    id integer primary key autoincrement,
    user_id bigint not null references users (id),
    hash blob not null unique check (length(hash) = 32),
    created_at bigint not null,
    expires_at bigint,
    revoked_at bigint
);

create table idempotency_keys (
    scope text not null,
    key text not null,
    fingerprint blob not null check (length(fingerprint) = 32),
    -- The HTTP status of the stored response; 0 while the request is still being handled.
    response_status bigint not null,
    response_body text not null,
    created_at bigint not null,
    -- The time after which the row may be deleted; null when the row is kept for ever, because the request moved money.
    expires_at bigint,
    primary key (scope, key)
);
create index idempotency_keys_expire on idempotency_keys (expires_at) where expires_at is not null;

----------------------------------------------------------------------------------------------------------------- catalog

create table categories (
    id integer primary key autoincrement,
    merchant_id bigint not null references merchants (id),
    mode text not null check (mode in ('live', 'test')),
    slug text not null,
    parent_id bigint references categories (id),
    position bigint not null,
    unique (merchant_id, mode, slug)
);

create table products (
    id integer primary key autoincrement,
    public_id text not null unique,
    merchant_id bigint not null references merchants (id),
    mode text not null check (mode in ('live', 'test')),
    slug text not null,
    category_id bigint references categories (id),
    state text not null,
    min_quantity bigint not null check (min_quantity >= 1),
    max_quantity bigint not null check (max_quantity >= min_quantity),
    position bigint not null,
    created_at bigint not null,
    unique (merchant_id, mode, slug)
);

-- Names and descriptions of products, SKUs and categories, by language tag. `subject` is `product:ID`, `sku:ID` or
-- `category:ID`.
create table localized_texts (
    subject text not null,
    language text not null,
    field text not null,
    body text not null,
    primary key (subject, field, language)
);

create table skus (
    id integer primary key autoincrement,
    product_id bigint not null references products (id),
    code text not null,
    state text not null,
    -- The number of stock items in the state `in_stock`. It is stored here, so that one conditional update reserves items.
    available bigint not null check (available >= 0),
    unique (product_id, code)
);

-- The unit prices of SKUs. A row applies to orders of at least `from_quantity` items. Every SKU has a row for 1 item.
create table sku_prices (
    sku_id bigint not null references skus (id),
    from_quantity bigint not null check (from_quantity >= 1),
    currency text not null,
    unit_price bigint not null check (unit_price >= 0),
    primary key (sku_id, currency, from_quantity)
);

create table stock_items (
    id integer primary key autoincrement,
    sku_id bigint not null references skus (id),
    state text not null,
    order_line_id bigint,
    -- The encrypted item that the buyer receives. The first five bytes are the format version and the id of the key.
    ciphertext blob not null,
    -- A keyed digest of the unencrypted item, so that the same item is not imported twice for a SKU.
    digest blob not null check (length(digest) = 32),
    imported_at bigint not null,
    check ((state in ('reserved', 'delivered')) = (order_line_id is not null)),
    unique (sku_id, digest)
);
-- The items that can be sold, in the order in which they are sold. No other index has this order, so PostgreSQL reads no
-- items that are already sold.
create index stock_items_in_stock on stock_items (sku_id, imported_at, id) where state = 'in_stock';
-- The items of imports that are not complete yet.
create index stock_items_staged on stock_items (sku_id, imported_at) where state = 'staged';
create index stock_items_by_order_line on stock_items (order_line_id) where order_line_id is not null;
-- This index finds the encryption keys in use, and the newest item of each key and state. At its start the daemon checks
-- that it can decrypt these items.
create index stock_items_by_key on stock_items (substr(ciphertext, 1, 5), state, id);

create table coupons (
    id integer primary key autoincrement,
    merchant_id bigint not null references merchants (id),
    mode text not null check (mode in ('live', 'test')),
    code text not null,
    -- The kind of the discount. percent: `value` is basis points of the price. fixed: `value` is minor units of `currency`.
    kind text not null,
    value bigint not null check (value > 0),
    currency text not null,
    min_amount bigint not null check (min_amount >= 0),
    product_id bigint references products (id),
    max_uses bigint,
    uses bigint not null check (uses >= 0),
    starts_at bigint,
    ends_at bigint,
    state text not null,
    created_at bigint not null,
    check (max_uses is null or uses <= max_uses),
    unique (merchant_id, mode, code)
);

------------------------------------------------------------------------------------------------------------------ orders

create table orders (
    id integer primary key autoincrement,
    public_id text not null unique,
    order_no text not null unique,
    merchant_id bigint not null references merchants (id),
    mode text not null check (mode in ('live', 'test')),
    surface text not null,
    state text not null,
    currency text not null,
    original_amount bigint not null check (original_amount >= 0),
    discount_amount bigint not null check (discount_amount >= 0),
    amount bigint not null check (amount >= 0),
    user_id bigint references users (id),
    coupon_id bigint references coupons (id),
    created_at bigint not null,
    expires_at bigint,
    paid_at bigint,
    -- The payment that paid the order; null while it is unpaid, and when it was paid at its creation. Further payments of the
    -- order are surplus.
    paid_by_payment_id bigint,
    closed_at bigint,
    check (original_amount = amount + discount_amount)
);
create index orders_by_merchant on orders (merchant_id, mode, id);

create table order_contacts (
    order_id integer primary key references orders (id),
    email text not null,
    -- The e-mail address for comparisons: in lower case, in composed Unicode (NFC), with the domain in ASCII form (A-labels).
    normalized_email text not null
);

create table order_lines (
    id integer primary key autoincrement,
    order_id bigint not null references orders (id),
    line_no bigint not null,
    sku_id bigint not null references skus (id),
    quantity bigint not null check (quantity >= 1),
    unit_price bigint not null check (unit_price >= 0),
    state text not null,
    delivered_at bigint,
    unique (order_id, line_no)
);

-- Paid orders whose goods are not delivered yet. The row of an order is deleted when its goods are delivered.
create table fulfilments (
    order_id integer primary key references orders (id),
    attempts bigint not null,
    next_attempt_at bigint not null
);
create index fulfilments_due on fulfilments (next_attempt_at);

---------------------------------------------------------------------------------------------------------------- payments

-- Payments: attempts to pay an order. An order may have several payments.
create table payments (
    id integer primary key autoincrement,
    public_id text not null unique,
    order_id bigint not null references orders (id),
    merchant_id bigint not null references merchants (id),
    mode text not null check (mode in ('live', 'test')),
    method text not null,
    state text not null,
    -- The user whose balance was debited, and the debited `amount` in base units of `asset`. All three are null for payments
    -- by other methods.
    user_id bigint references users (id),
    asset text,
    amount blob check (amount is null or length(amount) = 32),
    -- The payment page of an external provider such as Alipay. `provider_ref` is the id of the payment at the provider.
    pay_url text,
    provider_ref text,
    rate text,
    rate_source text,
    rated_at bigint,
    created_at bigint not null,
    closed_at bigint
);
create index payments_by_order on payments (order_id);
create index payments_external on payments (order_id) where state = 'pending' and method in ('alipay', 'wechat');

-- Account keys, which derive deposit addresses but cannot spend. `next_index` is the next unused derivation index; an index
-- is never used twice.
create table address_accounts (
    id integer primary key autoincrement,
    family text not null,
    -- The chain code and the public key of the account, 65 bytes. The same key written as xpub and as zpub is one account.
    key blob not null unique check (length(key) = 65),
    purpose text not null,
    mode text not null check (mode in ('live', 'test')),
    -- The derivation path in the configuration when the account was first used; may be empty.
    path text not null,
    next_index bigint not null
);

-- The epoch of the issued addresses, in one row. `settled restore` raises it. A daemon that was started with an earlier
-- epoch leases no indices.
create table address_epochs (
    id bigint primary key check (id = 1),
    epoch bigint not null
);
insert into address_epochs (id, epoch) values (1, 1);

-- Leases of address indices. The daemon takes the indices of new addresses from a lease, which belongs to one chain. Each
-- index is in at most one lease. Every leased address is watched.
create table address_leases (
    account_id bigint not null references address_accounts (id),
    first_index bigint not null,
    index_count bigint not null check (index_count >= 1),
    -- The chain of the addresses; null when `settled restore` skipped the indices, so that their addresses are watched on all
    -- chains of the account and never issued.
    chain text,
    -- The height of the highest block of the chain that was known when the indices were leased. Transfers in this block and
    -- below are older than the addresses, so they pay no invoice.
    height bigint not null,
    -- The height of the block at which the balances of the leased addresses were read; null until they are read.
    balances_height bigint,
    primary key (account_id, first_index)
);
create index address_leases_without_balances on address_leases (chain, first_index) where balances_height is null;

-- The balances of leased addresses at the block `balances_height` of their lease. Balances of zero have no row. Later
-- comparisons of balances with deposits leave this money out.
create table initial_balances (
    account_id bigint not null references address_accounts (id),
    derivation_index bigint not null,
    asset text not null,
    -- The balance in base units; null when no node could return it, so that later balances are not compared.
    amount blob check (amount is null or length(amount) = 32),
    primary key (account_id, derivation_index, asset)
);

create table addresses (
    id integer primary key autoincrement,
    chain text not null,
    key blob not null check (length(key) = 20),
    text text not null,
    account_id bigint not null references address_accounts (id),
    derivation_index bigint not null,
    issued_at bigint not null,
    unique (account_id, derivation_index),
    unique (chain, key)
);

-- Invoices: requests for on-chain payments. An invoice requests an amount of one asset, to its own address, before
-- `expires_at`.
create table invoices (
    id integer primary key autoincrement,
    public_id text not null unique,
    payment_id bigint not null unique references payments (id),
    merchant_id bigint not null references merchants (id),
    mode text not null check (mode in ('live', 'test')),
    chain text not null,
    asset text not null,
    address_id bigint not null unique references addresses (id),
    state text not null,
    amount_due blob not null check (length(amount_due) = 32),
    -- The amount, in base units, that may be missing when the invoice is accepted as paid.
    tolerance blob not null check (length(tolerance) = 32),
    currency text not null,
    price bigint not null,
    -- The price in US cents when the invoice was created, rounded up; null when no rate was known. It determines the
    -- confirmations of deposits.
    price_usd bigint,
    rate text not null,
    rate_source text not null,
    rated_at bigint not null,
    -- The number of confirmations that a deposit to the invoice needs at least; a deposit in the tip block has 1. The chain and the
    -- price determine the number when the invoice is created.
    confirmations bigint not null check (confirmations >= 1),
    created_at bigint not null,
    expires_at bigint not null,
    closed_at bigint,
    -- The number of times that the invoice was paid; more than 1 when a reorg reversed a payment that was then mined again.
    settlement_count bigint not null,
    -- The base units that the merchant was credited when the invoice was last paid; null unless the invoice is paid.
    -- `finalized_at` is the time when all deposits that the invoice counts were final; null before that time.
    credited_amount blob check (credited_amount is null or length(credited_amount) = 32),
    finalized_at bigint,
    -- The time until which a reversed invoice waits for its money to be mined again; null in the other states.
    reversal_deadline_at bigint
);
create index invoices_reversed on invoices (chain, reversal_deadline_at) where state = 'reversed';
create index invoices_open on invoices (chain, expires_at) where state = 'open';
create index invoices_open_by_asset on invoices (chain, asset, expires_at) where state = 'open';

------------------------------------------------------------------------------------------------------------------ chains

create table cursors (
    chain text primary key,
    height bigint not null,
    hash blob not null check (length(hash) = 32),
    block_time bigint not null,
    final_height bigint not null,
    -- The height of the block after which the daemon started to follow the chain.
    first_height bigint not null,
    -- The reason why the follower stopped reading the chain. It is null unless the chain is halted; the operator resumes a
    -- halted chain.
    halt_reason text
);

-- The recent blocks that the follower has read, up to the cursor. After a reorg the follower can rewind only to one of
-- these blocks.
create table blocks (
    chain text not null,
    height bigint not null,
    hash blob not null check (length(hash) = 32),
    block_time bigint not null,
    primary key (chain, height)
);

create table deposits (
    id integer primary key autoincrement,
    chain text not null,
    height bigint not null,
    tx_index bigint not null,
    part bigint not null,
    block_hash blob not null check (length(block_hash) = 32),
    block_time bigint not null,
    txid blob not null check (length(txid) = 32),
    asset text not null,
    address_id bigint not null references addresses (id),
    invoice_id bigint not null references invoices (id),
    amount blob not null check (length(amount) = 32),
    sender text,
    -- The state of the deposit. seen: it has too few confirmations. confirmed: it has enough confirmations. final: a reorg
    -- cannot remove its block. orphaned: a reorg removed its block, or the operator rejected it.
    state text not null,
    -- counted: the deposit counts towards the amount due of its invoice. The other values say why it does not count. short:
    -- the invoice expired with too little money. surplus: the invoice was already paid. late: the deposit was mined after
    -- the payment window. foreign: the invoice requests another asset. dust: the amount is too small to be a payment.
    -- before_lease: the block is not above the height of the address's lease, so the money is older than the invoice.
    disposition text not null,
    -- The deposit is confirmed when the cursor of the chain reaches this height. It depends on the price of the invoice and on
    -- the value of all counted deposits of the block together.
    confirm_height bigint not null,
    seen_at bigint not null,
    confirmed_at bigint,
    final_at bigint,
    orphaned_at bigint,
    -- The transaction that spends the output of the deposit, and the height of its block. Both are null while the output is
    -- unspent, and on chains without outputs.
    spending_txid blob check (spending_txid is null or length(spending_txid) = 32),
    spent_height bigint,
    -- The evidence of an endpoint of another provider. unchecked: no such endpoint has answered yet. shown: such an endpoint
    -- shows the transfer, or the chain needs no second source. contradicted: such an endpoint has passed the block and does
    -- not show the transfer. Only shown deposits are confirmed, except those with a `single_source_usd_cents`.
    corroboration text not null default 'unchecked',
    -- The number of checks that did not show the transfer, and the time from which the next check may be made.
    failed_checks bigint not null default 0,
    check_after bigint not null default 0,
    -- The value, in US cents, of a deposit that was confirmed although no endpoint of another provider could be asked; null
    -- for all others.
    single_source_usd_cents bigint
);
-- This index prevents a transfer from being booked twice. New keys are larger than old ones, so insertions stay fast.
create unique index deposits_once on deposits (chain, height, tx_index, part) where state <> 'orphaned';
create index deposits_by_invoice on deposits (invoice_id);
create index deposits_seen on deposits (chain, confirm_height) where state = 'seen';
create index deposits_confirmed on deposits (chain, height) where state = 'confirmed';
create index deposits_by_single_source on deposits (chain, confirmed_at) where single_source_usd_cents is not null;

-- These three indexes are for deposits that are transaction outputs; their `part` is in `TxPart::OUTPUT_CODES`. They find a
-- deposit by its output, all unspent deposits, and the deposits that were spent above a height.
create index deposits_by_output on deposits (chain, txid, part)
    where part >= 12884901888 and part < 17179869184 and state <> 'orphaned';
create index deposits_unspent on deposits (chain, id)
    where part >= 12884901888 and part < 17179869184 and state <> 'orphaned' and spending_txid is null;
create index deposits_spent on deposits (chain, spent_height) where spent_height is not null;

-- Transfers to addresses of our account keys that belong to no invoice of this database, such as late payments to addresses
-- that were issued after a backup. They are booked in the ledger when they are final, and each opens a review.
create table unclaimed_transfers (
    id integer primary key autoincrement,
    chain text not null,
    height bigint not null,
    tx_index bigint not null,
    part bigint not null,
    txid blob not null check (length(txid) = 32),
    asset text not null,
    address_key blob not null check (length(address_key) = 20),
    amount blob not null check (length(amount) = 32),
    -- The state of the transfer. seen: a reorg can remove its block. final: it is booked. orphaned: a reorg removed its block.
    state text not null,
    seen_at bigint not null
);
create unique index unclaimed_transfers_once on unclaimed_transfers (chain, height, tx_index, part) where state <> 'orphaned';
create index unclaimed_transfers_by_address on unclaimed_transfers (chain, address_key);
create index unclaimed_transfers_seen on unclaimed_transfers (chain, height) where state = 'seen';

-- Unconfirmed transfers: transfers in a mempool, or in a block that a reorg can still remove. Buyers see these transfers,
-- but the ledger does not book them. A transfer that was first seen before the end of the payment window is in time.
create table unconfirmed (
    id integer primary key autoincrement,
    chain text not null,
    txid blob not null check (length(txid) = 32),
    part bigint not null,
    asset text not null,
    invoice_id bigint not null references invoices (id),
    amount blob not null check (length(amount) = 32),
    replaceable bigint not null check (replaceable in (0, 1)),
    -- The state of the transfer. seen: the node reports it. mined: it is booked as a deposit. orphaned: the node no longer
    -- reports it.
    state text not null,
    first_seen_at bigint not null,
    ended_at bigint,
    unique (chain, txid, part)
);
create index unconfirmed_seen on unconfirmed (chain, id) where state = 'seen';
create index unconfirmed_by_invoice on unconfirmed (invoice_id);

-------------------------------------------------------------------------------------------------------------------- mail

create table mails (
    id integer primary key autoincrement,
    -- The part of the header `Message-ID` before the `@`; every attempt has the same.
    message_id text not null,
    recipient text not null,
    subject text not null,
    body text not null,
    -- queued, sent, failed (the mailbox does not exist) or parked (not sent within five days).
    state text not null,
    attempts bigint not null,
    next_attempt_at bigint not null,
    last_error text,
    created_at bigint not null
);
create index mails_due on mails (next_attempt_at) where state = 'queued';
create index mails_parked on mails (id) where state = 'parked';

------------------------------------------------------------------------------------------------------------------- rates

-- All exchange rates that were accepted. `rate` is the number of units of `quote` for one unit of `base`.
create table rates (
    id integer primary key autoincrement,
    base text not null,
    quote text not null,
    rate text not null,
    source text not null,
    observed_at bigint not null
);
create index rates_latest on rates (base, quote, id);
