"""Corrections of the sources: names, second answers, and facts that are left out because they are wrong or disputed."""

from __future__ import annotations

NO_COUNTRIES = frozenset(
    """AS AI AN AQ AW AX BL BM BQ BV CC CK CS CW CX EH FK FO GF GG GI GL GP GS GU HK HM IM IO JE KY MF MO MP MQ MS NC NF
    NU PF PM PN PR RE SH SJ SX TC TF TK UM VG VI WF YT""".split()
)
"""Territories of other countries, and countries that are no more."""

DISPUTED = frozenset(("PS", "XK"))

SUBJECTS = {
    "AE": "the United Arab Emirates",
    "BA": "Bosnia and Herzegovina",
    "BS": "the Bahamas",
    "CD": "the Democratic Republic of the Congo",
    "CF": "the Central African Republic",
    "CG": "the Republic of the Congo",
    "CV": "Cape Verde",
    "CZ": "the Czech Republic",
    "DO": "the Dominican Republic",
    "FM": "the Federated States of Micronesia",
    "GB": "the United Kingdom",
    "GM": "the Gambia",
    "KM": "the Comoros",
    "MH": "the Marshall Islands",
    "MV": "the Maldives",
    "NL": "the Netherlands",
    "PH": "the Philippines",
    "SB": "the Solomon Islands",
    "SC": "the Seychelles",
    "US": "the United States",
    "VA": "Vatican City",
}
"""Names as they stand in a sentence, where GeoNames' differ."""

MORE_NAMES: dict[str, tuple[str, ...]] = {
    "AE": ("UAE", "Emirates"),
    "BA": ("Bosnia", "Bosnia-Herzegovina"),
    "BN": ("Brunei Darussalam",),
    "CD": ("DRC", "DR Congo", "Congo", "Congo-Kinshasa", "Zaire", "Democratic Republic of Congo"),
    "CG": ("Congo", "Congo-Brazzaville", "Republic of Congo"),
    "CV": ("Cabo Verde",),
    "CZ": ("Czechia", "Czech"),
    "FM": ("Micronesia",),
    "GB": ("UK", "Great Britain", "Britain", "England", "Scotland", "Wales"),
    "KP": ("DPRK",),
    "KR": ("Republic of Korea", "Korea"),
    "LA": ("Lao PDR",),
    "MK": ("Macedonia", "Republic of Macedonia"),
    "MM": ("Burma",),
    "NL": ("Holland",),
    "RU": ("Russian Federation",),
    "ST": ("São Tomé and Príncipe", "São Tomé"),
    "SY": ("Syrian Arab Republic",),
    "SZ": ("Swaziland", "Eswatini"),
    "TL": ("East Timor", "Timor"),
    "TR": ("Türkiye", "Turkiye"),
    "TT": ("Trinidad",),
    "TZ": ("United Republic of Tanzania",),
    "US": ("USA", "US", "U.S.", "U.S.A.", "United States of America", "America"),
    "VN": ("Viet Nam",),
    "Washington": ("Washington D.C.", "Washington DC", "District of Columbia"),
    "Nay Pyi Taw": ("Naypyidaw", "Naypyitaw"),
    "Tarawa": ("South Tarawa",),
    "Melekeok": ("Ngerulmud",),
    "Astana": ("Nur-Sultan",),
    "Nur-Sultan": ("Astana",),
    "Kyiv": ("Kiev",),
    "Nuku‘alofa": ("Nukualofa",),  # noqa: RUF001
    "N'Djamena": ("Ndjamena",),
    "Sanaa": ("Sana",),
    "Chisinau": ("Kishinev",),
    "Ulan Bator": ("Ulaanbaatar",),
    "Ulaanbaatar": ("Ulan Bator",),
    "Sri Jayewardenepura Kotte": ("Sri Jayawardenepura Kotte", "Kotte", "Sri Jayawardenepura"),
    "La Paz": ("Nuestra Señora de La Paz",),
    "Antananarivo": ("Tananarive",),
    "New York City": ("New York",),
}
"""Names that the sources lack, of countries by code and of cities by name."""

MORE_CAPITALS: dict[str, tuple[str, ...]] = {
    "BJ": ("Cotonou",),
    "BO": ("La Paz", "Sucre"),
    "CI": ("Abidjan",),
    "KI": ("South Tarawa",),
    "LK": ("Sri Jayewardenepura Kotte", "Colombo"),
    "MM": ("Naypyidaw",),
    "MY": ("Putrajaya",),
    "PW": ("Ngerulmud",),
    "SZ": ("Lobamba",),
    "TZ": ("Dar es Salaam",),
    "US": ("Washington D.C.",),
    "ZA": ("Cape Town", "Bloemfontein"),
}
"""Seats of government and the like, which are right as well, and other spellings."""

CONTINENTS = {
    "AF": "Africa",
    "AN": "Antarctica",
    "AS": "Asia",
    "EU": "Europe",
    "NA": "North America",
    "OC": "Oceania",
    "SA": "South America",
}
MORE_CONTINENTS: dict[str, tuple[str, ...]] = {
    "AM": ("EU",),
    "AZ": ("EU",),
    "CY": ("AS",),
    "EG": ("AS",),
    "GE": ("EU",),
    "ID": ("OC",),
    "KZ": ("EU",),
    "RU": ("AS",),
    "TL": ("AS",),
    "TR": ("EU",),
}

MORE_CURRENCY_NAMES: dict[str, tuple[str, ...]] = {
    "BAM": ("convertible mark", "Bosnian mark"),
    "CNY": ("renminbi", "RMB", "Chinese renminbi"),
    "GBP": ("pound sterling", "sterling", "British pound sterling"),
    "KRW": ("Korean won",),
    "RUB": ("Russian ruble", "Russian rouble", "rouble"),
    "BYN": ("Belarusian rouble", "rouble"),
    "SAR": ("Saudi Arabian riyal",),
    "USD": ("US dollar", "U.S. dollar", "United States dollar", "American dollar"),
    "XAF": ("CFA franc", "Central African franc"),
    "XOF": ("CFA franc", "West African franc"),
    "ZAR": ("rand",),
}

NOT_OFFICIAL = frozenset(
    {
        *(("AD", code) for code in ("fr", "es", "oc")),
        *((code, "fr") for code in ("DZ", "LB", "MA", "TN")),
        *((code, "ru") for code in ("AM", "TM", "UA", "UZ")),
        *((code, "ff") for code in ("BF", "GN")),
        ("AZ", "hy"),
        ("BZ", "es"),
        ("CG", "ln"),
        ("CY", "hy"),
        ("FJ", "ur"),
        ("MG", "en"),
        ("NA", "af"),
        ("RS", "rs"),
    }
)
"""Languages that a source calls official in a country where they are spoken or were official."""

LANGUAGE_NAMES: dict[str, tuple[str, ...]] = {
    "az": ("Azeri", "Azerbaijani Turkish"),
    "bn": ("Bengali", "Bangla"),
    "ckb": ("Kurdish",),
    "cnr": ("Montenegrin",),
    "dv": ("Dhivehi", "Divehi", "Maldivian"),
    "fa": ("Persian", "Farsi", "Dari"),
    "fil": ("Filipino", "Tagalog"),
    "fj": ("Fijian",),
    "ga": ("Irish", "Irish Gaelic", "Gaelic"),
    "gil": ("Gilbertese", "Kiribati"),
    "gsw": ("Swiss German",),
    "he": ("Hebrew", "Modern Hebrew"),
    "ht": ("Haitian Creole", "Creole", "Haitian"),
    "km": ("Khmer", "Cambodian"),
    "ky": ("Kyrgyz", "Kirghiz"),
    "lb": ("Luxembourgish", "Letzeburgesch"),
    "lo": ("Lao", "Laotian"),
    "mh": ("Marshallese",),
    "ms": ("Malay", "Bahasa Melayu", "Malaysian", "Bahasa Malaysia"),
    "id": ("Indonesian", "Bahasa Indonesia", "Bahasa"),
    "my": ("Burmese", "Myanmar"),
    "na": ("Nauruan",),
    "nb": ("Norwegian", "Bokmål"),
    "nn": ("Norwegian", "Nynorsk"),
    "ny": ("Chichewa", "Chewa", "Nyanja"),
    "ps": ("Pashto", "Pushto", "Pashtu"),
    "rm": ("Romansh", "Romansch"),
    "rn": ("Kirundi", "Rundi"),
    "ro": ("Romanian", "Moldovan"),
    "rw": ("Kinyarwanda", "Rwandan"),
    "sg": ("Sango",),
    "si": ("Sinhala", "Sinhalese"),
    "sl": ("Slovene", "Slovenian"),
    "sm": ("Samoan",),
    "ss": ("Swazi", "Swati", "siSwati"),
    "st": ("Sotho", "Sesotho", "Southern Sotho"),
    "sw": ("Swahili", "Kiswahili"),
    "tet": ("Tetum", "Tetun"),
    "tg": ("Tajik", "Tadzhik"),
    "tk": ("Turkmen",),
    "tn": ("Tswana", "Setswana"),
    "to": ("Tongan",),
    "tpi": ("Tok Pisin",),
    "tvl": ("Tuvaluan",),
    "tzm": ("Berber", "Tamazight", "Amazigh"),
    "zdj": ("Comorian", "Shikomori"),
    "zh": ("Chinese", "Mandarin", "Mandarin Chinese", "Standard Chinese", "Putonghua"),
}

DEMONYMS: dict[str, tuple[str, ...]] = {
    "AR": ("Argentine", "Argentinian"),
    "AZ": ("Azerbaijani", "Azeri"),
    "BA": ("Bosnian",),
    "BB": ("Barbadian", "Bajan"),
    "BD": ("Bangladeshi",),
    "BF": ("Burkinabe", "Burkinese"),
    "BW": ("Motswana", "Batswana", "Botswanan"),
    "CI": ("Ivorian", "Ivoirian"),
    "CV": ("Cape Verdean",),
    "DJ": ("Djiboutian",),
    "DK": ("Danish", "Dane"),
    "EC": ("Ecuadorian",),
    "ES": ("Spanish", "Spaniard"),
    "FI": ("Finnish", "Finn"),
    "FR": ("French", "Frenchmen", "Frenchman"),
    "GB": ("British", "Briton", "Brit"),
    "GW": ("Bissau-Guinean", "Guinean"),
    "IE": ("Irish", "Irishmen", "Irishman"),
    "IS": ("Icelander", "Icelandic"),
    "KG": ("Kyrgyz", "Kyrgyzstani"),
    "KM": ("Comorian",),
    "KN": ("Kittitian", "Nevisian", "Kittitian and Nevisian"),
    "KR": ("South Korean", "Korean"),
    "KP": ("North Korean", "Korean"),
    "KZ": ("Kazakh", "Kazakhstani"),
    "LA": ("Lao", "Laotian"),
    "LC": ("Saint Lucian", "Lucian"),
    "LS": ("Mosotho", "Basotho"),
    "MG": ("Malagasy", "Madagascan"),
    "MK": ("Macedonian", "North Macedonian"),
    "MM": ("Burmese", "Myanmarese"),
    "MV": ("Maldivian",),
    "NE": ("Nigerien", "Nigerian from Niger"),
    "NL": ("Dutch", "Dutchmen", "Dutchman", "Netherlander"),
    "NP": ("Nepali", "Nepalese"),
    "NZ": ("New Zealander", "Kiwi"),
    "PH": ("Filipino", "Filipina", "Pinoy", "Philippine"),
    "PL": ("Polish", "Pole"),
    "PR": ("Puerto Rican",),
    "SA": ("Saudi", "Saudi Arabian"),
    "SE": ("Swedish", "Swede"),
    "SI": ("Slovenian", "Slovene"),
    "SK": ("Slovak", "Slovakian"),
    "SM": ("Sammarinese", "San Marinese"),
    "SR": ("Surinamese", "Surinamer"),
    "ST": ("São Toméan", "Sao Tomean"),
    "TJ": ("Tajik", "Tajikistani"),
    "TL": ("East Timorese", "Timorese"),
    "TR": ("Turkish", "Turk"),
    "TT": ("Trinidadian", "Tobagonian", "Trini"),
    "US": ("American",),
    "UZ": ("Uzbek", "Uzbekistani"),
    "VC": ("Vincentian", "Saint Vincentian"),
}
"""Demonyms that countryinfo lacks or spells in another way, the usual one first."""

NO_NEIGHBOURS = frozenset(
    map(frozenset, (("US", "CU"), ("IN", "AF"), ("IN", "LK"), ("KW", "IR"), ("MM", "BT"), ("CY", "GB")))
)
"""Pairs that a source takes for neighbours by land, and are not (or by a base or a claim alone)."""

LEFT_OUT = frozenset(
    {
        ("BI", "capital"),  # moved; the sources contradict each other
        ("GQ", "capital"),
        ("IL", "capital"),  # disputed
        ("ZW", "currency"),  # changes too often
        ("SV", "currency"),
        ("GB", "neighbour"),  # parts of it are named as countries
        ("VA", "demonym"),
    }
)
"""Facts that are disputed, or about which the sources contradict each other."""
