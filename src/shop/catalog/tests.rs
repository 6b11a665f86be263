use uuid::Uuid;

use crate::catalog::{self, EditError, LocalizedTexts, NewProduct, OrderableSku, PriceTier, PricingScheme, State};
use crate::fixture::{Fixture, NOW, OPERATOR, new_mailbox_product, run_read, run_write};
use ids::{Mode, Shop};
use money::pricing::{Currency, Fiat};

const CNY: Currency = Currency::CNY;

async fn find(shop: &Fixture, name: &str) -> Option<catalog::Product> {
    let (owner, name) = (shop.shop, name.to_owned());
    run_read(&shop.db, move |tx| {
        Box::pin(async move { catalog::find_active_priced_product(tx, owner, CNY, &name).await })
    })
    .await
}

async fn find_sku(shop: &Fixture, quantity: u32, scheme: PricingScheme) -> Option<OrderableSku> {
    let (owner, id) = (shop.shop, shop.product_id);
    run_read(&shop.db, move |tx| Box::pin(catalog::find_orderable_sku(tx, owner, CNY, id, quantity, scheme))).await
}

db::both! {
    async fn products_are_listed_by_position_with_stock_price_and_texts(db: Db) {
        let shop = Fixture::new(db, 3).await;
        let owner = shop.shop;
        let first = NewProduct { slug: "first".into(), position: -1, texts: LocalizedTexts::default(), ..new_mailbox_product(Uuid::new_v4()) };
        run_write(&shop.db, move |tx| Box::pin(async move {
            catalog::create_product_without_stock(tx, NOW, owner, first).await.unwrap();
            Ok(())
        })).await;
        let list = run_read(&shop.db, move |tx| Box::pin(catalog::list_active_priced_products(tx, owner, CNY))).await;
        let slugs: Vec<_> = list.iter().map(|product| (product.slug.as_str(), product.stock)).collect();
        assert_eq!(slugs, [("first", 0), ("mailbox", 3)]);
        assert_eq!(list[1].texts.find_text_in_language_or_variant("name", "zh"), Some("企业邮箱"));
        assert_eq!(list[1].texts.find_text_in_language_or_variant("name", "en"), Some("Business Mailbox"));
        assert_eq!(list[1].texts.find_text_in_language_or_variant("name", "ar"), None);
        assert_eq!(list[1].unit_price, Fiat::new(CNY, 50));
        assert_eq!(list[0].texts, LocalizedTexts::default());
        for other in [Shop { mode: Mode::Live, ..owner }] {
            assert!(run_read(&shop.db, move |tx| Box::pin(catalog::list_active_priced_products(tx, other, CNY))).await.is_empty());
        }
        assert!(run_read(&shop.db, move |tx| Box::pin(catalog::list_active_priced_products(tx, owner, Currency::USD))).await.is_empty());
    }

    async fn a_product_is_found_by_its_slug_and_by_its_id_in_any_notation(db: Db) {
        let shop = Fixture::new(db, 0).await;
        let id = shop.product_id;
        for name in [id.to_string(), id.to_string().to_uppercase(), id.simple().to_string(), "mailbox".into()] {
            assert_eq!(find(&shop, &name).await.unwrap().id, shop.product, "{name}");
        }
        for name in ["", "Mailbox", "none", "mail%", "\u{0}", "30a6d792-9e06-4023-85f4-736dfd9af07d"] {
            assert_eq!(find(&shop, name).await, None, "{name}");
        }
    }

    async fn an_inactive_product_is_hidden_until_it_is_active_again(db: Db) {
        let shop = Fixture::new(db, 5).await;
        let (owner, product) = (shop.shop, shop.product);
        run_write(&shop.db, move |tx| Box::pin(catalog::set_product_state(tx, NOW, &OPERATOR, product, "mailbox", State::Inactive))).await;
        assert_eq!(find(&shop, "mailbox").await, None);
        assert_eq!(find_sku(&shop, 1, PricingScheme::Tiered).await, None);
        assert!(run_read(&shop.db, move |tx| Box::pin(catalog::list_active_priced_products(tx, owner, CNY))).await.is_empty());
        let any = run_read(&shop.db, move |tx| Box::pin(catalog::find_priced_product_in_any_state(tx, owner, CNY, "mailbox"))).await;
        assert_eq!(any.unwrap().state, State::Inactive);
        run_write(&shop.db, move |tx| Box::pin(catalog::set_product_state(tx, NOW, &OPERATOR, product, "mailbox", State::Active))).await;
        assert_eq!(find(&shop, "mailbox").await.unwrap().stock, 5);
    }

    async fn an_operator_finds_products_with_prices_in_any_currency(db: Db) {
        let shop = Fixture::new(db, 2).await;
        let owner = shop.shop;
        let elsewhere = Uuid::new_v4();
        let (product, sku) = run_write(&shop.db, move |tx| Box::pin(async move {
            let tiers = vec![PriceTier { from_quantity: 1, unit_price: 9 }, PriceTier { from_quantity: 10, unit_price: 8 }];
            let new = NewProduct { slug: "abroad".into(), currency: Currency::USD, tiers, ..new_mailbox_product(elsewhere) };
            Ok(catalog::create_product_without_stock(tx, NOW, owner, new).await.unwrap())
        })).await;
        let stored = |name: &str| {
            let name = name.to_owned();
            run_read(&shop.db, move |tx| Box::pin(async move { catalog::find_product_in_any_state(tx, owner, &name).await }))
        };
        for name in ["abroad", &elsewhere.to_string().to_uppercase()] {
            let found = stored(name).await.unwrap();
            assert_eq!((found.id, found.sku, found.unit_prices), (product, sku, vec![Fiat::new(Currency::USD, 9)]), "{name}");
            assert_eq!(find(&shop, name).await, None, "it has no price in CNY");
        }
        assert_eq!(stored("Abroad").await, None);
        run_write(&shop.db, move |tx| Box::pin(async move {
            catalog::replace_price_tiers(tx, sku, CNY, &[PriceTier { from_quantity: 1, unit_price: 60 }]).await.unwrap();
            catalog::set_product_state(tx, NOW, &OPERATOR, product, "mailbox", State::Inactive).await
        })).await;
        let list = run_read(&shop.db, move |tx| Box::pin(catalog::list_all_products(tx, owner))).await;
        let seen: Vec<_> = list.iter().map(|p| (p.slug.as_str(), p.state, p.stock, p.unit_prices.clone())).collect();
        assert_eq!(seen, [
            ("mailbox", State::Active, 2, vec![Fiat::new(CNY, 50)]),
            ("abroad", State::Inactive, 0, vec![Fiat::new(CNY, 60), Fiat::new(Currency::USD, 9)]),
        ]);
        let live = Shop { mode: Mode::Live, ..owner };
        assert!(run_read(&shop.db, move |tx| Box::pin(catalog::list_all_products(tx, live))).await.is_empty());
    }

    async fn the_price_is_that_of_the_largest_tier_reached(db: Db) {
        let shop = Fixture::new(db, 0).await;
        for (quantity, scheme, minor) in [
            (1, PricingScheme::Tiered, 50), (99, PricingScheme::Tiered, 50), (100, PricingScheme::Tiered, 40), (500, PricingScheme::Tiered, 40),
            (500, PricingScheme::PerUnit, 50),
        ] {
            let sku = find_sku(&shop, quantity, scheme).await.unwrap();
            assert_eq!(sku.unit_price.minor, minor, "{quantity} {scheme:?}");
        }
    }

    async fn invalid_changes_are_rejected(db: Db) {
        let shop = Fixture::new(db, 0).await;
        let (owner, product, sku) = (shop.shop, shop.product, shop.sku);
        let create = |new: NewProduct| {
            shop.db.write("create", move |tx| Box::pin(catalog::create_product_without_stock(tx, NOW, owner, new)))
        };
        let other = || new_mailbox_product(Uuid::new_v4());
        assert_eq!(create(other()).await, Err(EditError::SlugTaken));
        for slug in ["", "Upper", "a b", "30a6d792-9e06-4023-85f4-736dfd9af07d", "30a6d7929e06402385f4736dfd9af07d"] {
            assert_eq!(create(NewProduct { slug: slug.into(), ..other() }).await, Err(EditError::BadSlug), "{slug}");
        }
        for (min_quantity, max_quantity) in [(0, 5), (6, 5)] {
            let new = NewProduct { slug: "x".into(), min_quantity, max_quantity, ..other() };
            assert_eq!(create(new).await, Err(EditError::BadLimits { min: min_quantity, max: max_quantity }));
        }
        let tier = |from_quantity, unit_price| PriceTier { from_quantity, unit_price };
        for tiers in [vec![], vec![tier(2, 1)], vec![tier(1, 1), tier(1, 2)], vec![tier(1, -1)]] {
            let set = shop.db.write("set_prices", move |tx| Box::pin(async move {
                catalog::replace_price_tiers(tx, sku, CNY, &tiers).await
            }));
            assert_eq!(set.await, Err(EditError::BadTiers));
        }
        shop.db.write("edit", move |tx| Box::pin(async move {
            catalog::set_quantity_limits(tx, product, 5, 10).await?;
            catalog::replace_price_tiers(tx, sku, CNY, &[tier(1, 60)]).await?;
            catalog::upsert_product_texts(tx, product, &LocalizedTexts::default().with_text("name", "en", "Mailbox")).await?;
            Ok::<_, EditError>(())
        })).await.unwrap();
        let product = find(&shop, "mailbox").await.unwrap();
        assert_eq!((product.min_quantity, product.max_quantity, product.unit_price.minor), (5, 10, 60));
        assert_eq!(product.texts.find_text_in_language_or_variant("name", "en"), Some("Mailbox"));
        assert_eq!(find_sku(&shop, 100, PricingScheme::Tiered).await.unwrap().unit_price.minor, 60);
    }
}
