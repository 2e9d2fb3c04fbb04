-- Two schemas that asking has never heard of: a shop, and a clinic without comments or vocabulary tables.

CREATE SCHEMA shop;

CREATE TABLE shop.customers (id int PRIMARY KEY, name text, country text, created_at timestamptz);
CREATE TABLE shop.products (id int PRIMARY KEY, name text, category text, price numeric);
CREATE TABLE shop.orders (
    id int PRIMARY KEY,
    customer_id int REFERENCES shop.customers,
    ordered_at timestamp NOT NULL,
    shipped_at timestamp,
    status text,
    total_amount numeric
);
CREATE TABLE shop.order_items (
    order_id int REFERENCES shop.orders,
    product_id int REFERENCES shop.products,
    quantity int,
    unit_price numeric,
    PRIMARY KEY (order_id, product_id)
);
CREATE TABLE shop.invoices (
    invoice_id int PRIMARY KEY,
    order_id int REFERENCES shop.orders,
    issued_on date,
    amount numeric,
    paid boolean
);

INSERT INTO shop.customers
SELECT n, 'Customer ' || n, (ARRAY['Germany', 'France', 'United States'])[n % 3 + 1],
       timestamptz '2025-01-01 00:00+00' + n * interval '5 days'
FROM generate_series(1, 40) AS n;
INSERT INTO shop.products VALUES
    (1, 'Lamp', 'Lighting', 20), (2, 'Desk', 'Furniture', 200.5), (3, 'Office chair', 'Furniture', 99.9), (4, 'Bulb', 'Lighting', 3);
INSERT INTO shop.orders
SELECT n, n * 7 % 35 + 1, timestamp '2025-01-01 08:00' + n * interval '17 hours',
       timestamp '2025-01-03 08:00' + n * interval '17 hours',
       (ARRAY['Open', 'Paid', 'Shipped', 'Cancelled'])[n % 4 + 1], n * 3.5
FROM generate_series(1, 400) AS n;
INSERT INTO shop.order_items
SELECT o.id, p.id, (o.id + p.id) % 5 + 1, p.price FROM shop.orders AS o JOIN shop.products AS p ON (o.id + p.id) % 3 = 0;
INSERT INTO shop.invoices
SELECT n, n, date '2025-01-05' + n, n * 4, n % 3 = 0 FROM generate_series(1, 150) AS n;

CREATE SCHEMA clinic;

CREATE TYPE clinic.urgency AS ENUM ('routine', 'urgent', 'emergency');
CREATE TABLE clinic.doctor ("doctorId" int PRIMARY KEY, "fullName" text, speciality text);
CREATE TABLE clinic."Visit" (
    "visitId" bigint PRIMARY KEY,
    "doctorId" int REFERENCES clinic.doctor,
    "visitDate" date NOT NULL,
    urgency clinic.urgency,
    "waitMinutes" int,
    fee numeric
);

INSERT INTO clinic.doctor
SELECT n, 'Dr ' || n, (ARRAY['Cardiology', 'Dermatology', 'Paediatrics'])[n % 3 + 1] FROM generate_series(1, 9) AS n;
INSERT INTO clinic."Visit"
SELECT n, n * 5 % 9 + 1, date '2024-10-01' + n, (ARRAY['routine', 'urgent', 'routine', 'emergency'])[n % 4 + 1]::clinic.urgency,
       n % 50, n * 1.25
FROM generate_series(1, 200) AS n;
