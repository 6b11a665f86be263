//! A shop for the tests of this crate: one merchant, one product at 0.50 CNY, and USDT on Ethereum at 1 USD = 7.24 CNY.

use std::sync::Arc;

use chain::address::AddressScheme;
use chain::{Amount, Asset, AssetKind, ChainId, Deriver, Family, WatchSet};
use futures_util::future::BoxFuture;
use uuid::Uuid;

use crate::catalog::{self, LocalizedTexts, NewProduct, PriceTier, PricingScheme};
use crate::orders::new_payment::{PaymentMethod, PaymentService, Tolerance};
use crate::orders::{self, CreateOrderError, NewLine, NewOrder, OrderReference, PlacedOrder};
use crate::users::{self, Credit, NewUser, User};
use crate::{merchants, stock};
use clock::Instant;
use db::{self, Db, Tx};
use envelope::Envelope;
use ids::{Mode, ProductId, Shop, SkuId};
use money::addresses::{Addresses, ChainAccount};
use money::assets::{Assets, Depths, Dust, FollowedChain, PaymentAsset};
use money::pricing::{Currency, Fiat, Rate, RateBook};
use records::audit_log::Actor;

/// The current time in the tests: 2026-02-11T12:00:00Z.
pub const NOW: Instant = Instant(1_770_811_200_000);
/// The length of the payment window of new orders, in milliseconds.
pub const WINDOW_MS: i64 = 30 * 60_000;
/// The name of the API surface that creates the orders.
pub const SURFACE: &str = "checkout";

/// The account key of the test vectors in BIP 84.
const XPUB: &str =
    "xpub6CatWdiZiodmUeTDp8LT5or8nmbKNcuyvz7WyksVFkKB4RHwCD3XyuvPEbvqAQY3rAPshWcMLoP2fMFMKHPJ4ZeZXYVUhLv1VMrjPC7PW6V";

/// The actor of administrative actions in tests.
pub const OPERATOR: Actor = Actor::CommandLine { uid: 1000 };

/// A shop with its database and everything that orders need.
pub struct Fixture {
    pub db: Db,
    pub shop: Shop,
    pub payment_service: PaymentService,
    pub watched: Arc<WatchSet>,
    pub envelope: Arc<Envelope>,
    pub product_id: Uuid,
    pub product: ProductId,
    pub sku: SkuId,
}

impl Fixture {
    /// Creates the shop and [imports](Fixture::import_lines) the lines 0 to `items` − 1 as its stock.
    pub async fn new(db: Db, items: usize) -> Fixture {
        let envelope = Arc::new(Envelope::generate());
        let product_id = Uuid::new_v4();
        let (shop, product, sku) = run_write(&db, move |tx| {
            Box::pin(async move {
                let merchant =
                    merchants::create_merchant(tx, NOW, &OPERATOR, Uuid::new_v4(), "acme", "Acme").await.unwrap();
                let shop = Shop { merchant, mode: Mode::Test };
                let (product, sku) =
                    catalog::create_product_without_stock(tx, NOW, shop, new_mailbox_product(product_id))
                        .await
                        .unwrap();
                Ok((shop, product, sku))
            })
        })
        .await;
        let watched = Arc::new(WatchSet::default());
        let payment_service = build_payment_service(&db, &watched).await;
        let fixture = Fixture { db, shop, payment_service, watched, envelope, product_id, product, sku };
        fixture.import_lines(0..items).await;
        fixture
    }

    /// Imports one line `userN@example.org----passN` for each number N.
    pub async fn import_lines(&self, numbers: impl IntoIterator<Item = usize>) -> stock::ImportResult {
        let lines: Vec<String> = numbers.into_iter().map(|n| format!("user{n}@example.org----pass{n}")).collect();
        let sku = self.sku;
        let items = stock::validate_and_encrypt_lines(&self.envelope, sku, lines.iter().map(String::as_str)).unwrap();
        run_write(&self.db, move |tx| Box::pin(stock::import_stock_items(tx, NOW, &OPERATOR, "mailbox", sku, items)))
            .await
    }

    /// Creates a user with this name and returns it.
    pub async fn create_user(&self, name: &str) -> User {
        let (shop, name) = (self.shop, name.to_owned());
        run_write(&self.db, move |tx| {
            Box::pin(async move {
                let email = Some("ann@example.com".into());
                let new = NewUser { public_id: Uuid::new_v4(), name: name.clone(), email };
                users::create_user(tx, NOW, &OPERATOR, shop, new).await.unwrap();
                Ok(users::find_user_by_name(tx, shop, &name).await?.unwrap())
            })
        })
        .await
    }

    /// Credits `units` base units to the user's balance.
    pub async fn credit_balance(&self, user: &User, currency: Currency, units: u64) {
        let (shop, user) = (self.shop, user.clone());
        run_write(&self.db, move |tx| {
            Box::pin(async move {
                let credit = Credit { currency, amount: units.into(), reference: Uuid::new_v4().to_string() };
                users::credit_user_balance(tx, NOW, &OPERATOR, shop, &user, credit).await.unwrap();
                Ok(())
            })
        })
        .await;
    }

    /// Returns the user's balance in base units.
    pub async fn load_balance(&self, user: &User, currency: Currency) -> String {
        let (shop, user) = (self.shop, user.id);
        run_read(&self.db, move |tx| {
            Box::pin(
                async move { users::load_available_balance(tx, shop, user, &users::to_balance_asset(currency)).await },
            )
        })
        .await
        .to_string()
    }

    /// Returns an order for `quantity` units of the product, to be paid in USDT on Ethereum.
    pub fn build_crypto_order(&self, quantity: u32) -> NewOrder {
        NewOrder {
            reference: OrderReference::new_random(&mut rand::rng(), "CO", NOW),
            shop: self.shop,
            surface: SURFACE,
            currency: Currency::CNY,
            pricing_scheme: PricingScheme::Tiered,
            lines: vec![NewLine { product: self.product_id, quantity }],
            quantity_max: 200,
            email: " Ann@Example.com ".into(),
            user: None,
            coupon: None,
            payment_method: PaymentMethod::Crypto("erc20_usdt".into()),
            window_ms: WINDOW_MS,
        }
    }

    /// Returns an order that the user pays from the CNY balance.
    pub fn build_balance_order(&self, quantity: u32, user: &User) -> NewOrder {
        NewOrder { user: Some(user.id), payment_method: PaymentMethod::BalanceCny, ..self.build_crypto_order(quantity) }
    }

    /// Reserves a payment address if the order needs one, and creates the order.
    pub async fn create_order(&self, new: NewOrder) -> Result<PlacedOrder, CreateOrderError> {
        let payment_service = self.payment_service.clone();
        let address = payment_service.reserve_address_if_on_chain(&self.db, new.shop, &new.payment_method).await?;
        self.db
            .write("create_order", move |tx| {
                Box::pin(async move { orders::create_order(tx, NOW, &payment_service, new, address).await })
            })
            .await
    }

    /// Returns the number of available items of the product.
    pub async fn count_available_items(&self) -> u64 {
        let (shop, id) = (self.shop, self.product_id.to_string());
        let found = run_read(&self.db, move |tx| {
            Box::pin(async move { catalog::find_priced_product_in_any_state(tx, shop, Currency::CNY, &id).await })
        })
        .await;
        found.unwrap().stock
    }

    /// Asserts that every SKU's stored count equals its number of items in stock.
    pub async fn assert_stock_counts(&self) {
        assert_eq!(run_read(&self.db, |tx| Box::pin(stock::list_stock_count_mismatches(tx))).await, Vec::new());
    }

    /// Returns the number in the first column of the first row that `sql` selects.
    pub async fn select_number(&self, sql: &'static str) -> i64 {
        run_read(&self.db, move |tx| Box::pin(async move { db::row!(tx, sql)?.unwrap().get_at(0) })).await
    }
}

/// Returns the product of the fixture. One unit costs 0.50 CNY, or 0.40 CNY from a quantity of 100 on.
pub fn new_mailbox_product(public_id: Uuid) -> NewProduct {
    NewProduct {
        public_id,
        slug: "mailbox".into(),
        min_quantity: 1,
        max_quantity: catalog::MAX_QUANTITY,
        position: 0,
        currency: Currency::CNY,
        tiers: vec![PriceTier { from_quantity: 1, unit_price: 50 }, PriceTier { from_quantity: 100, unit_price: 40 }],
        texts: LocalizedTexts::default().with_text("name", "zh", "企业邮箱").with_text(
            "name",
            "en",
            "Business Mailbox",
        ),
    }
}

/// Runs `body` in a write transaction of the database and returns its result.
pub async fn run_write<T, F>(db: &Db, body: F) -> T
where
    T: Send + 'static,
    F: for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, Result<T, db::Error>> + Send + 'static,
{
    db.write("test", body).await.unwrap()
}

/// Runs `body` in a read transaction of the database and returns its result.
pub async fn run_read<T, F>(db: &Db, body: F) -> T
where
    T: Send + 'static,
    F: for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, Result<T, db::Error>> + Send + 'static,
{
    db.read("test", body).await.unwrap()
}

async fn build_payment_service(db: &Db, watched: &Arc<WatchSet>) -> PaymentService {
    let id = ChainId::parse("ethereum").unwrap();
    let kind = AssetKind::Token { contract: "0xdAC17F958D2ee523a2206206994597C13D831ec7".into() };
    let usdt = Asset::new(id.clone(), kind, "USDT", 6, 6);
    let chain = FollowedChain {
        id: id.clone(),
        family: Family::Evm,
        mode: Mode::Test,
        depths: Depths::depths_without_tiers(12, 64),
        watched: watched.clone(),
        siblings: Vec::new(),
        dust: Dust::default(),
    };
    let payment_asset =
        PaymentAsset { code: "erc20_usdt".into(), asset: usdt, rate_symbol: "USDT".into(), min_due: Amount::ZERO };
    let account = ChainAccount {
        chain: id,
        family: Family::Evm,
        purpose: "deposit-test".into(),
        mode: Mode::Test,
        path: String::new(),
        deriver: Deriver::from_account_key(XPUB, AddressScheme::Evm).unwrap(),
        watched: watched.clone(),
    };
    let addresses = run_write(db, move |tx| Box::pin(Addresses::store_account_keys_and_build(tx, vec![account]))).await;
    let rates = RateBook::new(60_000, 0);
    for (base, quote, value) in [("USDT", "USD", "1"), ("USD", "CNY", "7.24")] {
        rates.set_rate(base, quote, Rate { value: value.parse().unwrap(), source: "fixed".into(), observed_at: NOW });
    }
    let tolerance = Tolerance { basis_points: 0, usd: Fiat::new(Currency::USD, 0) };
    PaymentService { assets: Arc::new(Assets::new(vec![chain], vec![payment_asset])), rates, addresses, tolerance }
}
