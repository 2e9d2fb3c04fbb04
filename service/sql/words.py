"""The words that stored SQL may use, and those that read the clock."""

import re
from typing import Final


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


FUNCTIONS = words("""
    abs acos acosd acosh asin asind asinh atan atan2 atan2d atand atanh cbrt ceil ceiling cos cosd cosh cot
    cotd degrees div erf erfc exp factorial floor gamma gcd lcm lgamma ln log log10 min_scale mod pi pow
    power radians random random_normal round scale sign sin sind sinh sqrt tan tand tanh trim_scale trunc
    width_bucket

    ascii bit_count bit_length btrim casefold char_length character_length chr concat concat_ws convert
    convert_from convert_to crc32 crc32c decode encode format get_bit get_byte hashtext hashtextextended
    initcap is_normalized left
    length lower lpad ltrim md5 normalize octet_length overlay parse_ident position quote_ident quote_literal
    quote_nullable regexp_count regexp_instr regexp_like regexp_match regexp_matches regexp_replace
    regexp_split_to_array regexp_split_to_table regexp_substr repeat replace reverse right rpad rtrim set_bit
    set_byte sha224 sha256 sha384 sha512 split_part starts_with string_to_array string_to_table strpos substr
    substring to_ascii to_bin to_hex to_oct translate trim unicode_assigned unistr upper

    age clock_timestamp current_date current_time current_timestamp date_add date_bin date_part date_subtract
    date_trunc extract isfinite justify_days justify_hours justify_interval localtime localtimestamp
    make_date make_interval make_time make_timestamp make_timestamptz now overlaps statement_timestamp
    timeofday timezone transaction_timestamp to_char to_date to_number to_timestamp

    any_value array_agg avg bit_and bit_or bit_xor bool_and bool_or corr count covar_pop covar_samp cume_dist
    dense_rank every first_value grouping lag last_value lead max min mode nth_value ntile percent_rank
    percentile_cont percentile_disc rank regr_avgx regr_avgy regr_count regr_intercept regr_r2 regr_slope
    regr_sxx regr_sxy regr_syy row_number stddev stddev_pop stddev_samp string_agg sum var_pop var_samp
    variance

    array_append array_cat array_dims array_fill array_length array_lower array_ndims array_position
    array_positions array_prepend array_remove array_replace array_reverse array_sample array_shuffle
    array_sort array_to_string array_upper cardinality generate_series generate_subscripts trim_array unnest
    coalesce enum_first enum_last enum_range greatest least nullif num_nonnulls num_nulls

    isempty lower_inc lower_inf multirange range_agg range_intersect_agg range_merge upper_inc upper_inf

    array_to_json json json_agg json_agg_strict json_array json_array_elements json_array_elements_text
    json_array_length json_arrayagg json_build_array json_build_object json_each json_each_text json_exists
    json_extract_path json_extract_path_text json_object json_object_agg json_object_agg_strict
    json_object_agg_unique json_object_agg_unique_strict json_object_keys json_objectagg json_populate_record
    json_populate_recordset json_query json_scalar json_serialize json_strip_nulls json_table json_to_record
    json_to_recordset json_typeof json_value jsonb_agg jsonb_agg_strict jsonb_array_elements
    jsonb_array_elements_text jsonb_array_length jsonb_build_array jsonb_build_object jsonb_each
    jsonb_each_text jsonb_extract_path jsonb_extract_path_text jsonb_insert jsonb_object jsonb_object_agg
    jsonb_object_agg_strict jsonb_object_agg_unique jsonb_object_agg_unique_strict jsonb_object_keys
    jsonb_path_exists jsonb_path_exists_tz jsonb_path_match jsonb_path_match_tz jsonb_path_query
    jsonb_path_query_array jsonb_path_query_array_tz jsonb_path_query_first jsonb_path_query_first_tz
    jsonb_path_query_tz jsonb_populate_record jsonb_populate_record_valid jsonb_populate_recordset
    jsonb_pretty jsonb_set jsonb_set_lax jsonb_strip_nulls jsonb_to_record jsonb_to_recordset jsonb_typeof
    row_to_json to_json to_jsonb

    array_to_tsvector json_to_tsvector jsonb_to_tsvector numnode phraseto_tsquery plainto_tsquery setweight
    strip to_tsquery to_tsvector ts_delete ts_filter ts_headline ts_rank ts_rank_cd tsquery_phrase
    tsvector_to_array websearch_to_tsquery

    abbrev area broadcast center diagonal diameter family height host hostmask inet_merge inet_same_family
    isclosed ishorizontal isopen isparallel isperp isvertical macaddr8_set7bit masklen netmask network
    npoints pclose popen radius set_masklen slope width

    gen_random_uuid uuid_extract_timestamp uuid_extract_version uuidv4 uuidv7 pg_column_size pg_size_bytes
    pg_size_pretty pg_typeof current_setting
""")  # not ts_stat, ts_rewrite and xpath functions (they run or read text), setseed (it changes the session)
TYPES = words("""
    bigint bit bool boolean box bpchar bytea char character cidr circle date datemultirange daterange dec
    decimal double float float4 float8 inet int int2 int4 int4multirange int4range int8 int8multirange
    int8range integer interval json jsonb jsonpath line lseg macaddr macaddr8 money name national nchar
    numeric nummultirange numrange oid path point polygon precision real record smallint text time timestamp
    timestamptz timetz tsmultirange tsquery tsrange tstzmultirange tstzrange tsvector unknown uuid varbit
    varchar varying
""")
SYNTAX = words("""
    all and any array as asc between both by case cast check collate columns cube default desc distinct else
    end escape except exists false fetch filter first following for from group having ilike in intersect into
    is isnull join lateral leading like limit materialized next not notnull null offset on only operator or
    order over placing preceding recursive repeatable rollup row second select sets similar some symmetric
    asymmetric table then to trailing true union using values variadic when where window with within zone
""")  # words that may precede a parenthesis without being a call
RESERVED = words("""
    all analyse analyze and any array as asc asymmetric both case cast check collate column constraint create
    current_catalog current_date current_role current_time current_timestamp current_user default deferrable
    desc distinct do else end except false fetch for foreign from grant group having in initially intersect
    into lateral leading limit localtime localtimestamp not null offset on only or order placing primary
    references returning select session_user some symmetric system_user table then to trailing true union
    unique user using variadic when where window with authorization binary collation concurrently cross
    current_schema freeze full ilike inner is isnull join left like natural notnull outer overlaps right
    similar tablesample verbose
""")  # never an unquoted column or relation: if the tree has one, sqlglot read the text unlike Postgres
SESSION_WORDS = words(
    "current_catalog current_role current_schema current_user session_user system_user user"
)
CATALOG_NAMES = words("""
    aclitem regclass regcollation regconfig regdictionary regnamespace regoper regoperator regproc
    regprocedure regrole regtype _aclitem _regclass _regcollation _regconfig _regdictionary _regnamespace
    _regoper _regoperator _regproc _regprocedure _regrole _regtype information_schema
""")  # types that look names up in the catalogs, and a schema of catalogs
CLOCK_CALLS = words("clock_timestamp statement_timestamp transaction_timestamp")  # now() has its own node
OTHER_CLOCKS = words("timeofday uuidv7")  # their value is not a timestamp
CLOCK: Final = re.compile(
    r"(?<![^\W\d_])"
    r"(?:now|today|tomorrow|yesterday|current_(?:date|time|timestamp)|localtime(?:stamp)?|tablesample)"
    r"(?![^\W\d_])",
    re.IGNORECASE,
)
"""Words by which SQL, or a text that is cast to a time, means something new in each run."""

CLAIMS = "'request.claims'"

NODES = words("""
    Add Adjacent Alias Aliases All Any AtTimeZone Between BitString BitwiseAnd BitwiseLeftShift BitwiseNot
    BitwiseOr BitwiseRightShift BitwiseXor Boolean Bracket ByteString Column ColumnDef CTE Cube DataType
    DataTypeParam Distance Distinct Div Dot DPipe EQ Escape Except ExtendsLeft ExtendsRight Fetch Filter
    FormatJson From Group GroupingSets GT GTE Having HexString Identifier ILike In IntDiv Intersect Interval
    IntervalSpan Is Join JSON JSONColumnDef JSONKeyValue JSONPath JSONPathKey JSONPathRoot JSONPathSubscript
    JSONSchema JSONValue Kwarg Lambda Lateral Like Limit LimitOptions Literal LT LTE Mod Mul National Neg
    NEQ Not Null NullSafeEQ NullSafeNEQ ObjectIdentifier Offset OnCondition Operator Order Ordered Overlaps
    Paren Placeholder PropertyEQ RawString RecursiveWithSearch Rollup Select SimilarTo Slice Star Sub
    Subquery Table TableAlias TableSample Tuple Union Values Var Variadic Where Window WindowSpec With
    WithinGroup
""")  # kinds of sqlglot's nodes; functions are checked by their written names
