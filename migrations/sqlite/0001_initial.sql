-- Columns are BIGINT, TEXT and BLOB. Instants end in `_at` and are milliseconds since 1970-01-01 UTC; block times are
-- seconds. Flags are 0 or 1. Fiat amounts are in minor units of their currency. Amounts of assets are 32 bytes big-endian,
-- so that the order of the bytes is the order of the numbers. States and kinds are checked by the program: SQLite cannot
-- change a check constraint.

-- Work that only one instance may do at a time. The epoch is a fencing token: it grows with each change of the owner.
create table leases (
    name text primary key,
    owner text not null,
    epoch bigint not null,
    expires_at bigint not null
);

-- Facts that must be the same at every start: chain ids, genesis hashes, decimals of tokens.
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

-- The operator's inbox: money or facts that no rule decides.
create table reviews (
    id integer primary key autoincrement,
    kind text not null,
    subject text not null,
    detail text not null,
    -- The amount that the review is about, in base units; null where it is about none.
    amount blob check (amount is null or length(amount) = 32),
    opened_at bigint not null,
    closed_at bigint,
    -- decided (by the operator), resolved (the cause is over) or retracted (the money or fact vanished).
    closing_reason text,
    closing_note text,
    unique (kind, subject)
);
create index reviews_open on reviews (opened_at) where closed_at is null;

-- Actions of administrators.
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
    -- 1: posted credits minus posted and held debits may not go below zero, and every transaction updates the balance row.
    non_negative bigint not null check (non_negative in (0, 1)),
    unique (code, asset, mode)
);
create index accounts_rolled_up on accounts (id) where non_negative = 0;

-- Sums of the postings of an account. Every transaction updates the row of a non-negative account. A worker updates all
-- others; their rows hold the postings up to the hash chain number `rolled_up_to`.
create table balances (
    account_id integer primary key references accounts (id),
    debits_pending blob not null check (length(debits_pending) = 32),
    debits_posted blob not null check (length(debits_posted) = 32),
    credits_pending blob not null check (length(credits_pending) = 32),
    credits_posted blob not null check (length(credits_posted) = 32),
    rolled_up_to bigint not null
);

-- Immutable: one debit, one credit, one asset. The kind is `posted`, `pending` (a hold), or `post` or `void`, exactly one of
-- which resolves a hold.
create table postings (
    seq integer primary key autoincrement,
    -- The name of the journal entry, and the number of the posting in it, from 0.
    entry text not null,
    line_no bigint not null,
    kind text not null,
    -- The hold that this posting resolves.
    hold_seq bigint references postings (seq),
    debit_account_id bigint not null references accounts (id),
    credit_account_id bigint not null references accounts (id),
    amount blob not null check (length(amount) = 32),
    reason text not null,
    created_at bigint not null,
    -- The place in the hash chain, from 1. Set once: in the same transaction on SQLite, soon after by a worker on PostgreSQL.
    hash_chain_no bigint unique,
    hash blob check (length(hash) = 32),
    check ((kind in ('post', 'void')) = (hold_seq is not null)),
    check (debit_account_id <> credit_account_id),
    unique (entry, line_no)
);
create unique index postings_resolve_once on postings (hold_seq) where hold_seq is not null;
-- Find the postings of an account after a place in the hash chain, so that a roll-up reads only what is new.
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

-- Personal data has tables of its own, so that it can be erased.
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
    -- 0 until the response is known.
    response_status bigint not null,
    response_body text not null,
    created_at bigint not null,
    -- Null: kept for ever, because the call moved money.
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

-- Names and descriptions by language tag; `subject` is product:ID, sku:ID or category:ID.
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
    -- The number of items in stock, kept here so that a reservation is one conditional update.
    available bigint not null check (available >= 0),
    unique (product_id, code)
);

-- The unit price from a quantity on; every SKU has one from 1 on.
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
    -- The encrypted secret line; its first five bytes are the version and the id of the key.
    ciphertext blob not null,
    -- Keyed digest of the secret line: the same line is not imported twice.
    digest blob not null check (length(digest) = 32),
    imported_at bigint not null,
    check ((state in ('reserved', 'delivered')) = (order_line_id is not null)),
    unique (sku_id, digest)
);
create index stock_items_in_stock on stock_items (sku_id, id) where state = 'in_stock';
create index stock_items_by_order_line on stock_items (order_line_id) where order_line_id is not null;
-- Finds the keys that are in use, and the newest item of each key in a state: a start checks that it can decrypt them.
create index stock_items_by_key on stock_items (substr(ciphertext, 1, 5), state, id);

create table coupons (
    id integer primary key autoincrement,
    merchant_id bigint not null references merchants (id),
    mode text not null check (mode in ('live', 'test')),
    code text not null,
    -- percent: `value` is in basis points; fixed: `value` is in minor units of `currency`.
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
    closed_at bigint,
    check (original_amount = amount + discount_amount)
);
create index orders_by_merchant on orders (merchant_id, mode, id);

create table order_contacts (
    order_id integer primary key references orders (id),
    email text not null,
    -- The form for comparison: in lower case, in composed Unicode (NFC), with the domain in ASCII form (A-labels).
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

-- Paid orders whose goods are not handed out yet. The row is deleted when they are.
create table fulfilments (
    order_id integer primary key references orders (id),
    attempts bigint not null,
    next_attempt_at bigint not null
);
create index fulfilments_due on fulfilments (next_attempt_at);

---------------------------------------------------------------------------------------------------------------- payments

-- One attempt to pay an order.
create table payments (
    id integer primary key autoincrement,
    public_id text not null unique,
    order_id bigint not null references orders (id),
    merchant_id bigint not null references merchants (id),
    mode text not null check (mode in ('live', 'test')),
    method text not null,
    state text not null,
    -- The user whose balance paid, and the amount taken from it in base units of `asset`; null for all other methods.
    user_id bigint references users (id),
    asset text,
    amount blob check (amount is null or length(amount) = 32),
    -- The page of an external checkout, and the id that it gave the payment.
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

-- A watch-only account key. Its indices are handed out in order, and none twice.
create table address_accounts (
    id integer primary key autoincrement,
    family text not null,
    xpub text not null unique,
    next_index bigint not null
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

-- The terms of an on-chain payment: an amount of an asset, an address, and a time limit.
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
    -- A payment that is short by at most this much still pays the invoice.
    tolerance blob not null check (length(tolerance) = 32),
    currency text not null,
    price bigint not null,
    rate text not null,
    rate_source text not null,
    rated_at bigint not null,
    -- Depth at which a deposit to it is confirmed, fixed by chain and price when the invoice is made; 1: in the tip block.
    confirmations bigint not null check (confirmations >= 1),
    created_at bigint not null,
    expires_at bigint not null,
    closed_at bigint,
    -- The number of times that the invoice was paid; more than one after a reversal.
    settlement_count bigint not null,
    -- The amount that the merchant was credited at the last settlement, and when the deposits behind it became final.
    credited_amount blob check (credited_amount is null or length(credited_amount) = 32),
    finalized_at bigint,
    -- A reversed invoice waits until then for its money to arrive again.
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
    -- The first block that was ever read; every block from there to the cursor was read.
    first_height bigint not null,
    -- Why the follower of the chain stopped, until the operator resumes it; null while it follows.
    halt_reason text
);

-- The recent blocks of the branch that the cursor is on, as many as a reorganisation can be followed back.
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
    -- seen, confirmed, final or orphaned.
    state text not null,
    -- counted: it counts towards its invoice. Not counted: short (the invoice expired unpaid), surplus (it was paid already),
    -- late (it came after the window), foreign (another asset), dust (too little to be a payment).
    disposition text not null,
    -- The cursor height from which on it has enough confirmations.
    confirm_height bigint not null,
    seen_at bigint not null,
    confirmed_at bigint,
    final_at bigint,
    orphaned_at bigint,
    -- The transaction that spends the deposit's output, and the height of its block; null while it is unspent.
    spending_txid blob check (spending_txid is null or length(spending_txid) = 32),
    spent_height bigint
);
-- The same transfer is booked once. The key grows, which keeps the index cheap.
create unique index deposits_once on deposits (chain, height, tx_index, part) where state <> 'orphaned';
create index deposits_by_invoice on deposits (invoice_id);
create index deposits_seen on deposits (chain, confirm_height) where state = 'seen';
create index deposits_confirmed on deposits (chain, height) where state = 'confirmed';

-- Deposits that are transaction outputs (parts in `Part::OUTPUTS`): by their outpoint, the unspent ones, and the ones whose
-- spending a reorganisation undoes.
create index deposits_by_output on deposits (chain, txid, part)
    where part >= 12884901888 and part < 17179869184 and state <> 'orphaned';
create index deposits_unspent on deposits (chain, id)
    where part >= 12884901888 and part < 17179869184 and state <> 'orphaned' and spending_txid is null;
create index deposits_spent on deposits (chain, spent_height) where spent_height is not null;

-- Transfers in a mempool, or in a block that can still vanish. They are shown and never booked. A transfer that was first
-- seen before its invoice expired is in time.
create table unconfirmed (
    id integer primary key autoincrement,
    chain text not null,
    txid blob not null check (length(txid) = 32),
    part bigint not null,
    asset text not null,
    invoice_id bigint not null references invoices (id),
    amount blob not null check (length(amount) = 32),
    replaceable bigint not null check (replaceable in (0, 1)),
    -- seen, mined or orphaned.
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

-- Every rate that was accepted: `rate` units of `quote` for one `base`.
create table rates (
    id integer primary key autoincrement,
    base text not null,
    quote text not null,
    rate text not null,
    source text not null,
    observed_at bigint not null
);
create index rates_latest on rates (base, quote, id);
