"""Names of countries and cities that do not exist, made up to sound as if they might."""

from __future__ import annotations

COUNTRIES = tuple(
    """Zubrowka Velundia Karthistan Morvenia Ostrania Belugria Tamunesia Quarvia Drelland Norvastan Sulmaria Ankoria
    Fandolia Ilvenia Jorvetia Kelmara Lorantia Mezubia Nalgonia Orvistan Pelandria Rundavia Selkovia Tirmania
    Ulvandia Vostrania Wendoria Xanovia Yambaland Zarembia Brivania Caldovia Dunmark Eshkaria Farolia Gondavia
    Haldania Iskovia Kunbara Lesandria Mandovia Nuvaria Ostland-Vey Pratovia Qirmania Rolvania Sardovia Tulmenistan
    Umbaria Vandelia""".split()
)
CITIES = tuple(
    """Velmargrad Tasquebo Orlunda Kesmarovo Bintarra Qualdor Nervisk Ambelune Doskara Fenwilde-sur-Mar Grolstadt
    Hinnavik Isperanza-Nova Jalmabad Korvetsk Lumbaraya Mirandesh Novoskarn Ostrelund Pindaroja Quentavar Rastovgrad
    Sulvanpur Tremolinha Ushkarat Vantobel Wexmunde Yarimpur Zelkovice Abrunhal""".split()
)
