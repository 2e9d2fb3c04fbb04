"""The same SQL as most would serve it: FastAPI, SQLAlchemy with asyncpg, a pool of 8."""

import os

from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

url = os.environ["READER_DATABASE_URL"].replace("postgresql://", "postgresql+asyncpg://", 1)
settings = {"server_settings": {"search_path": "data"}}
engine = create_async_engine(url, pool_size=8, max_overflow=0, connect_args=settings)
app = FastAPI()


@app.get("/")
async def result():
    async with engine.connect() as connection:
        rows = await connection.execute(text(os.environ["SQL"]))
        return {"records": [dict(row) for row in rows.mappings()]}
